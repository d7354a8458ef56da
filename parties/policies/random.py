"""Random tokens: the baseline that every other policy has to beat."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from parties.decoding.program import Program, staged
from parties.policies.checks import whole
from parties.policies.eviction import Eviction

if TYPE_CHECKING:
    from parties.decoding.cache import Cache, LayerCache
    from parties.engines.base import Engine


@dataclass(frozen=True)
class Random(Eviction):
    """Keeps tokens of the prompt drawn at random, independently for each key head.

    The draw is public and independent of the data, so that dropping the other tokens is local.

    Attributes:
        compression_ratio: Share of the prompt's tokens that is removed, in [0, 1); 0 keeps everything.
        mode: What happens to evicted rows, `compact` or `mask`.
        seed: Seed of the draw.
    """

    name: ClassVar[str] = "random"
    keeps: ClassVar[str] = "a random share of the prompt for each key head, and all generated tokens"
    source: ClassVar[str] = "kvpress `RandomPress`"

    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A parameter is outside its range; the message names it, its value and the allowed values.
        """
        super().__post_init__()
        whole("seed", self.seed, 0)

    def after_prefill(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[None]:  # noqa: ARG002
        """Drops all but the drawn tokens."""
        here = cache.layers[layer]
        if self.budget(here.tokens) < here.tokens:
            yield from staged(engine.meter, "evict", self._drop(engine, here, layer))

    def _drop(self, engine: "Engine", here: "LayerCache", layer: int) -> Program[None]:
        kv_heads, n = here.k.shape[0], here.tokens
        generator = torch.Generator().manual_seed(self.seed << 16 | layer)
        drawn = torch.rand(kv_heads, n, generator=generator).argsort(dim=1)[:, : self.budget(n)].sort(dim=1).values
        heads = torch.arange(kv_heads).unsqueeze(1)
        if self.mode == "mask":
            here.alive = engine.constant(torch.zeros(kv_heads, n).scatter(1, drawn, 1.0))
        else:
            here.k, here.v = here.k[heads, drawn], here.v[heads, drawn]
        return
        yield
