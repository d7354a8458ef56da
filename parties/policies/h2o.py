# ruff: noqa: ARG002 - hooks have their arguments, needed or not
"""H2O (arXiv 2306.14048, NeurIPS 2023): heavy hitters, the tokens that got most attention so far, and recent tokens."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parties.decoding.program import Program, staged
from parties.policies.checks import share
from parties.policies.decoding import DecodingEviction, reach
from parties.policies.eviction import by_key_head
from parties.policies.prompt_scores import attention_of

if TYPE_CHECKING:
    from parties.decoding.cache import Cache, LayerCache
    from parties.engines.base import Engine


@dataclass(frozen=True)
class H2O(DecodingEviction):
    """Keeps the tokens with the largest sum of attention over all queries so far, and the most recent ones.

    As published, a token is evicted at every step (`compression_interval: 1`); by default several are evicted at once,
    which takes one selection instead of many. The cheapest form that decides at every step is `mode: mask` with a
    `compact_every`: each decision costs a tournament, and rows are moved rarely.

    Attributes:
        compression_ratio: Share of the prompt's tokens that is removed, in [0, 1); 0 keeps everything.
        mode: What happens to evicted rows, `compact` or `mask`.
        compression_interval: Number of tokens decoded between two evictions; 1 as published.
        compact_every: In `mask` mode, number of tokens decoded before evicted rows are removed; a multiple of the
            interval; 0 never.
        recent: Share of the budget for the most recent tokens, in [0, 1].
    """

    name: ClassVar[str] = "h2o"
    per_token: ClassVar[tuple[str, ...]] = ("score",)
    keeps: ClassVar[str] = "by key head, the tokens with the most attention so far and the most recent ones"
    prefill_cost: ClassVar[str] = "H n^2 exponentials and as many products; one selection of B among n by key head"
    step_cost: ClassVar[str] = (
        "H T products to divide the weights; every W steps one selection among B + W by key head, which moves "
        "2 G (B + W) rows; with W = 1 about 5.6 G B comparisons"
    )
    source: ClassVar[str] = (
        "Zhang et al., arXiv 2306.14048. Sums over all queries as in the paper; kvpress' `ObservedAttentionPress` takes"
        " means and keeps no recent tokens. Summed over the heads of a group"
    )
    by_head: ClassVar[bool] = True

    recent: float = 0.5

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A parameter is outside its range; the message names it, its value and the allowed values.
        """
        super().__post_init__()
        share("recent", self.recent)

    @property
    def observes(self) -> bool:
        """Whether every step's attention is added to the sums."""
        return self.compression_ratio > 0

    def protected(self, prompt: int) -> tuple[int, int]:
        """The recent share of the budget."""
        return 0, int(self.budget(prompt) * self.recent)

    def after_prefill(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[None]:
        """Sums the prompt's attention, and evicts to the budget."""
        if self.compression_ratio:
            yield from staged(engine.meter, "evict", self._begin(engine, cache, cache.layers[layer], q))

    def _begin(self, engine: "Engine", cache: "Cache", here: "LayerCache", q: Any) -> Program[None]:
        kv_heads, n, budget = here.k.shape[0], here.tokens, self.budget(cache.prompt)
        here.state["score"] = yield from attention_of(engine, q, here.k, 0, lambda w: by_key_head(w, kv_heads))
        candidates = here.state["score"][:, : n - self.protected(n)[1]]
        bound = float(n * q.shape[0] // kv_heads + 1)
        yield from self.evict(engine, here, candidates, 0, budget, n - budget, bound)

    def remember(self, engine: "Engine", cache: "Cache", here: "LayerCache", weights: Any) -> Program[None]:
        """Adds a step's attention to the sums; the new token's begins at zero."""
        kv_heads = here.k.shape[0]
        old = engine.bounded(here.state["score"], reach(cache) * weights.shape[0] // kv_heads)
        here.state["score"] = old + by_key_head(weights, kv_heads)
        return
        yield

    def rate(
        self,
        engine: "Engine",
        cache: "Cache",
        here: "LayerCache",
        weights: Any,
        span: slice,
    ) -> Program[tuple[Any, float]]:
        """The sums."""
        return here.state["score"][:, span], reach(cache) * weights.shape[0] // here.k.shape[0]
        yield
