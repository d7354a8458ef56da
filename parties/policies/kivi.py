"""KIVI (arXiv 2402.02750, ICML 2024): keys quantised per channel, values per token."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parties.decoding.program import Program, parallel, staged
from parties.policies.base import Policy
from parties.policies.checks import OutOfRange, whole
from parties.policies.quantise import quantised

if TYPE_CHECKING:
    from parties.decoding.cache import Cache, LayerCache
    from parties.engines.base import Engine


@dataclass(frozen=True)
class KIVI(Policy):
    """Keeps every token; those that are not recent are quantised to few bits.

    Keys are quantised in groups of `group_size` tokens of a channel, `residual_length` tokens at once; values in groups
    of `group_size` channels of a token, each token once `residual_length` others follow it.

    Attributes:
        nbits: Bits of a quantised number, 1 to 8.
        group_size: Number of elements that share a scale.
        residual_length: Number of recent tokens that are not quantised; a multiple of `group_size`.
    """

    name: ClassVar[str] = "kivi"
    keeps: ClassVar[str] = "every token, the older ones in `nbits` bits; a step attends to all"
    prefill_cost: ClassVar[str] = "2^b + 1 comparisons per quantised number: G d (n - residual) keys and as many values"
    step_cost: ClassVar[str] = (
        "2^b + 1 comparisons per quantised number: G d values at each step, and G d keys on average"
    )
    source: ClassVar[str] = "Liu et al., arXiv 2402.02750; defaults of jy-yuan/KIVI"
    in_order: ClassVar[bool] = True
    by_head: ClassVar[bool] = True

    nbits: int = 2
    group_size: int = 32
    residual_length: int = 128

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A parameter is outside its range; the message names it, its value and the allowed values.
        """
        for name in ("nbits", "group_size", "residual_length"):
            whole(name, getattr(self, name), 1)
        if self.nbits > 8:
            raise OutOfRange("nbits", self.nbits, "at most 8: each number is compared with 2^nbits levels")
        if self.residual_length % self.group_size:
            allowed = f"a multiple of group_size {self.group_size}"
            raise OutOfRange("residual_length", self.residual_length, allowed)

    def after_prefill(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[None]:  # noqa: ARG002
        """Quantises whole residuals of keys, and all values but the last residual."""
        here, residual = cache.layers[layer], self.residual_length
        keys, values = here.tokens // residual * residual, max(0, here.tokens - residual)
        yield from staged(engine.meter, "evict", self._flush(engine, here, (0, keys), (0, values)))

    def after_attention(self, engine: "Engine", cache: "Cache", layer: int, weights: Any) -> Program[None]:  # noqa: ARG002
        """Quantises the value that is no longer recent, and keys once a residual is full."""
        here, residual = cache.layers[layer], self.residual_length
        full = here.tokens % residual == 0
        keys = (here.tokens - residual, here.tokens) if full else (0, 0)
        values = (here.tokens - residual - 1, here.tokens - residual) if here.tokens > residual else (0, 0)
        yield from staged(engine.meter, "evict", self._flush(engine, here, keys, values))

    def _flush(
        self, engine: "Engine", here: "LayerCache", keys: tuple[int, int], values: tuple[int, int]
    ) -> Program[None]:
        """Quantises a span of keys and one of values."""
        programs, (a, b), (c, e) = {}, keys, values
        if b > a:
            channels = here.k[:, a:b].transpose(1, 2)
            programs["k"] = quantised(engine, channels, self.nbits, self.group_size)
        if e > c:
            programs["v"] = quantised(engine, here.v[:, c:e], self.nbits, self.group_size)
        done = dict(zip(programs, (yield from parallel(*programs.values())), strict=True))
        if "k" in done:
            here.k = engine.cat([here.k[:, :a], done["k"].transpose(1, 2), here.k[:, b:]], dim=1)
        if "v" in done:
            here.v = engine.cat([here.v[:, :c], done["v"], here.v[:, e:]], dim=1)
