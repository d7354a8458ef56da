# ruff: noqa: ARG002 - hooks have their arguments, needed or not
"""StreamingLLM (arXiv 2309.17453, ICLR 2024): attention sinks and the most recent tokens."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from parties.decoding.program import Program, staged
from parties.policies.checks import whole
from parties.policies.decoding import DecodingEviction

if TYPE_CHECKING:
    from parties.decoding.cache import Cache, LayerCache
    from parties.engines.base import Engine


@dataclass(frozen=True)
class StreamingLLM(DecodingEviction):
    """Keeps the first tokens and the last ones, by position alone.

    Attributes:
        compression_ratio: Share of the prompt's tokens that is removed, in [0, 1); 0 keeps everything.
        mode: What happens to evicted rows, `compact` or `mask`.
        compression_interval: Number of tokens decoded between two evictions; dropping rows costs nothing here.
        compact_every: In `mask` mode, number of tokens decoded before evicted rows are removed; a multiple of the
            interval; 0 never.
        n_sink: Number of first tokens that are always kept.
    """

    name: ClassVar[str] = "streaming_llm"
    keeps: ClassVar[str] = "the first `n_sink` tokens and the most recent ones, together the budget, while decoding too"
    source: ClassVar[str] = (
        "Xiao et al., arXiv 2309.17453; kvpress `StreamingLLMPress`. As in kvpress, keys keep the positions they were "
        "cached with; the paper renumbers the kept tokens"
    )

    compression_interval: int = 1
    n_sink: int = 4

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A parameter is outside its range; the message names it, its value and the allowed values.
        """
        super().__post_init__()
        whole("n_sink", self.n_sink, 0)

    def protected(self, prompt: int) -> tuple[int, int]:
        """Sinks and recent tokens make up the budget, so that all other tokens are evicted."""
        sinks = min(self.n_sink, self.budget(prompt))
        return sinks, self.budget(prompt) - sinks

    def after_prefill(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[None]:
        """Drops the middle of the prompt."""
        here, budget = cache.layers[layer], self.budget(cache.prompt)
        going = here.tokens - budget
        scores = engine.constant(torch.zeros(1, going))
        sinks, _ = self.protected(cache.prompt)
        yield from staged(engine.meter, "evict", self.evict(engine, here, scores, sinks, budget, going, 1.0))

    def rate(
        self,
        engine: "Engine",
        cache: "Cache",
        here: "LayerCache",
        weights: Any,
        span: slice,
    ) -> Program[tuple[Any, float]]:
        """Equal scores."""
        return engine.constant(torch.zeros(1, span.stop - span.start)), 1.0
        yield
