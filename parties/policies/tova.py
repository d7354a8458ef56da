# ruff: noqa: ARG002 - hooks have their arguments, needed or not
"""TOVA (arXiv 2401.06104): keeps the tokens that the current query attends to."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parties.decoding.program import Program, staged
from parties.policies.decoding import DecodingEviction
from parties.policies.prompt_scores import attention_of

if TYPE_CHECKING:
    from parties.decoding.cache import Cache, LayerCache
    from parties.engines.base import Engine


@dataclass(frozen=True)
class TOVA(DecodingEviction):
    """Keeps the tokens with the largest attention of the current query, averaged over heads: one set for all heads.

    As published, a token is evicted at every step (`compression_interval: 1`); by default several are evicted at once,
    by the query of that step.

    Attributes:
        compression_ratio: Share of the prompt's tokens that is removed, in [0, 1); 0 keeps everything.
        mode: What happens to evicted rows, `compact` or `mask`.
        compression_interval: Number of tokens decoded between two evictions; 1 as published.
        compact_every: In `mask` mode, number of tokens decoded before evicted rows are removed; a multiple of the
            interval; 0 never.
    """

    name: ClassVar[str] = "tova"
    keeps: ClassVar[str] = "by layer, the tokens with the most attention of the last query over all heads"
    prefill_cost: ClassVar[str] = "H n exponentials and as many products; one selection of B among n"
    step_cost: ClassVar[str] = (
        "H T products to divide the weights; every W steps one selection among B + W, which moves 2 G (B + W) rows"
    )
    source: ClassVar[str] = (
        "Oren et al., arXiv 2401.06104; kvpress `TOVAPress`. As in kvpress, the newest token is always kept; in the "
        "paper it competes"
    )

    @property
    def observes(self) -> bool:
        """Whether the step's attention is needed as scores."""
        return self.compression_ratio > 0

    def protected(self, prompt: int) -> tuple[int, int]:
        """The newest token."""
        return 0, 1

    def after_prefill(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[None]:
        """Keeps the tokens that the prompt's last query attends to."""
        here, budget = cache.layers[layer], self.budget(cache.prompt)
        if budget < here.tokens:
            yield from staged(engine.meter, "evict", self._begin(engine, here, q, budget))

    def _begin(self, engine: "Engine", here: "LayerCache", q: Any, budget: int) -> Program[None]:
        n = here.tokens
        seen = yield from attention_of(engine, q, here.k, n - 1, lambda weights: weights.sum(0))
        yield from self.evict(engine, here, seen[:, : n - 1], 0, budget, n - budget, float(q.shape[0] + 1))

    def rate(
        self,
        engine: "Engine",
        cache: "Cache",
        here: "LayerCache",
        weights: Any,
        span: slice,
    ) -> Program[tuple[Any, float]]:
        """The step's attention, summed over heads."""
        return weights.sum(0)[:, span], float(weights.shape[0] + 1)
        yield
