"""Random tokens: the floor that every other policy has to beat."""

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
    """Keeps tokens of the prompt drawn at random, for each key head its own.

    The draw is public and does not look at the data, so that dropping the others is local.

    Attributes:
        compression_ratio: share of the prompt's tokens that is removed, in [0, 1); 0 keeps everything.
        mode: what becomes of evicted rows, `compact` or `mask`.
        seed: of the draw; another one keeps other tokens.
    """

    name: ClassVar[str] = "random"
    keeps: ClassVar[str] = "a random share of the prompt for each key head, and all that is generated"
    source: ClassVar[str] = "kvpress `RandomPress`"

    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: names the parameter, its value and what is allowed.
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
