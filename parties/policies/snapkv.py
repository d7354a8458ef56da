"""SnapKV (arXiv 2404.14469, NeurIPS 2024): tokens that the end of the prompt attends to, smoothed along the text."""

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
    """Keeps, by key head, the tokens that the last queries of the prompt attend to, and these last tokens themselves.

    The attention of the last `window_size` queries to the tokens before them is summed and smoothed along the text; the
    highest tokens are kept in addition to the window. A window larger than the budget is reduced to it.

    Attributes:
        compression_ratio: Share of the prompt's tokens that is removed, in [0, 1); 0 keeps everything.
        mode: What happens to evicted rows, `compact` or `mask`.
        window_size: Number of last prompt tokens, whose queries rate the others and which are always kept.
        kernel_size: Number of tokens over which scores are smoothed, odd.
        pooling: `avg` is local; `max` takes kernel_size - 1 comparisons per token and head.
    """

    name: ClassVar[str] = "snapkv"
    keeps: ClassVar[str] = "by key head, the tokens that the prompt's last queries attend to, and these last tokens"
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
            ValueError: A parameter is outside its range; the message names it, its value and the allowed values.
        """
        super().__post_init__()
        whole("window_size", self.window_size, 1)
        whole("kernel_size", self.kernel_size, 1)
        if self.kernel_size % 2 == 0:
            raise OutOfRange("kernel_size", self.kernel_size, "odd: centred on the token")
        one_of("pooling", self.pooling, ("avg", "max"))

    def after_prefill(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[None]:
        """Evicts to the layer's budget."""
        here = cache.layers[layer]
        budget = self.layer_budgets(here.tokens, len(cache.layers))[layer]
        if budget < here.tokens:
            yield from staged(engine.meter, "evict", self._keep(engine, here, q, budget))

    def layer_budgets(self, prompt: int, n_layers: int) -> tuple[int, ...]:
        """Number of prompt tokens that count in each layer, without masked ones."""
        return (self.budget(prompt),) * n_layers

    def _keep(self, engine: "Engine", here: "LayerCache", q: Any, budget: int) -> Program[None]:
        heads, n, _ = q.shape
        window = min(self.window_size, budget)
        seen = yield from attention_of(engine, q, here.k, n - window, lambda weights: weights.sum(1))
        pooled = yield from self._pooled(engine, seen[:, : n - window])
        scores = by_key_head(pooled.reshape(heads, 1, n - window), here.k.shape[0])
        bound = float(window * self.kernel_size * heads // here.k.shape[0] + 1)
        yield from self.evict(engine, here, scores, 0, budget, n - budget, bound)

    def _pooled(self, engine: "Engine", x: Any) -> Program[Any]:
        """Computes sums, or maxima, of `kernel_size` neighbours along the last axis of x [heads, m], zero-padded."""
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
