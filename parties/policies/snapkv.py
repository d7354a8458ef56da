"""SnapKV (arXiv 2404.14469, NeurIPS 2024): what the end of the prompt looks at, smoothed along the text."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from parties.decoding.program import Program, staged
from parties.policies.checks import OutOfRange, one_of, whole
from parties.policies.eviction import Eviction, by_key_head
from parties.policies.prompt_scores import attention_of

if TYPE_CHECKING:
    from parties.decoding.cache import Cache, LayerCache
    from parties.engines.base import Engine


@dataclass(frozen=True)
class SnapKV(Eviction):
    """Keeps, by key head, what the last queries of the prompt attend to, and these last tokens themselves.

    The attention of the last `window_size` queries to the tokens before them is summed, smoothed along the text, and
    the highest tokens stay beside the window. A window larger than the budget is cut to it.

    Attributes:
        compression_ratio: share of the prompt's tokens that is removed, in [0, 1); 0 keeps everything.
        mode: what becomes of evicted rows, `compact` or `mask`.
        window_size: last tokens of the prompt, whose queries rate the others and which always stay.
        kernel_size: tokens that are smoothed over, odd.
        pooling: `avg` is local; `max` takes kernel_size - 1 comparisons a token and head.
    """

    name: ClassVar[str] = "snapkv"
    keeps: ClassVar[str] = "by key head, the tokens that the prompt's last queries look at, and these last tokens"
    prefill_cost: ClassVar[str] = (
        "H w n exponentials and as many products for a window of w; one selection of B - w among n - w by key head, "
        "which moves 2 G n rows; smoothing is local"
    )
    source: ClassVar[str] = (
        "Li et al., arXiv 2404.14469. Defaults (window 64, average over 5) and order as in kvpress `SnapKVPress`; the "
        "paper pools by maximum (`pooling: max`)"
    )

    window_size: int = 64
    kernel_size: int = 5
    pooling: Literal["avg", "max"] = "avg"

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: names the parameter, its value and what is allowed.
        """
        super().__post_init__()
        whole("window_size", self.window_size, 1)
        whole("kernel_size", self.kernel_size, 1)
        if self.kernel_size % 2 == 0:
            raise OutOfRange("kernel_size", self.kernel_size, "odd: a token has as many neighbours on both sides")
        one_of("pooling", self.pooling, ("avg", "max"))

    def after_prefill(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[None]:
        """Keeps the budget of the layer."""
        here = cache.layers[layer]
        budget = self.layer_budgets(here.tokens, len(cache.layers))[layer]
        if budget < here.tokens:
            yield from staged(engine.meter, "evict", self._keep(engine, here, q, budget))

    def layer_budgets(self, prompt: int, n_layers: int) -> tuple[int, ...]:
        """Tokens of the prompt that count in each layer, masked ones aside."""
        return (self.budget(prompt),) * n_layers

    def _keep(self, engine: "Engine", here: "LayerCache", q: Any, budget: int) -> Program[None]:
        heads, n, _ = q.shape
        window = min(self.window_size, budget)
        seen = yield from attention_of(engine, q, here.k, n - window, lambda weights: weights.sum(1))
        smooth = yield from self._pooled(engine, seen[:, : n - window])
        scores = by_key_head(smooth.reshape(heads, 1, n - window), here.k.shape[0])
        bound = float(window * self.kernel_size * heads // here.k.shape[0] + 1)
        yield from self.evict(engine, here, scores, 0, budget, n - budget, bound)

    def _pooled(self, engine: "Engine", x: Any) -> Program[Any]:
        """Sums, or maxima, over `kernel_size` neighbours along the last axis of x [heads, m], zero outside."""
        heads, m = x.shape
        edge = engine.constant(torch.zeros(heads, self.kernel_size // 2))
        padded = engine.cat([edge, x, edge], dim=1) if self.kernel_size > 1 else x
        shifted = [padded[:, i : i + m] for i in range(self.kernel_size)]
        if self.pooling == "max":
            stacked = engine.cat([part.reshape(heads, 1, m) for part in shifted], dim=1)
            return (yield from engine.largest(stacked, dim=1)).reshape(heads, m)
        total = shifted[0]
        for part in shifted[1:]:
            total = total + part
        return total
