# ruff: noqa: ARG002 - a hook that does nothing still has its arguments
"""Eviction while tokens are decoded: at every step, or lazily, several tokens at once."""

from abc import abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parties.decoding.program import Program, staged
from parties.policies.checks import OutOfRange, whole
from parties.policies.eviction import Eviction

if TYPE_CHECKING:
    from parties.decoding.cache import Cache, LayerCache
    from parties.engines.base import Engine


@dataclass(frozen=True)
class DecodingEviction(Eviction):
    """Keeps the cache at a budget while decoding: after every `compression_interval` tokens as many are evicted.

    The interval is kvpress' name; a larger one is *lazy*: the same decisions less often, in one selection. In `mask`
    mode evicted rows can be removed after every `compact_every` tokens, so that a policy may decide at every step and
    move rows rarely.

    Attributes:
        compression_interval: Number of tokens decoded between two evictions.
        compact_every: In `mask` mode, number of tokens decoded before evicted rows are removed; a multiple of the
            interval; 0 never.
    """

    draft_fix: ClassVar[str] = "take a larger compression_interval"

    compression_interval: int = 64
    compact_every: int = 0

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A parameter is outside its range; the message names it, its value and the allowed values.
        """
        super().__post_init__()
        whole("compression_interval", self.compression_interval, 1)
        whole("compact_every", self.compact_every, 0)
        if self.compact_every % self.compression_interval:
            allowed = f"a multiple of compression_interval {self.compression_interval}"
            raise OutOfRange("compact_every", self.compact_every, allowed)

    def held(self, prompt: int, generated: int) -> int:
        """The budget and the tokens since the last eviction."""
        leaves = self.compact_every if self.mode == "mask" else self.compression_interval
        if not self.compression_ratio or not leaves or generated <= leaves:
            return self.cached(prompt) + generated
        return self.budget(prompt) + (generated - 1) % leaves + 1

    def pass_key(self, tokens: int, generated: int) -> Hashable | None:
        """The interval between two evictions, of which the last step evicts; none if every step does."""
        if not self.compression_ratio:
            return ()
        return None if self.compression_interval == 1 else (generated - 1) // self.compression_interval

    def step_name(self, cache: "Cache", layer: int) -> Hashable | None:
        """Steps that do not evict are alike; those that do recur soon only if every step does."""
        if not self.compression_ratio:
            return ()
        generated = cache.position - cache.prompt + 1
        name = (reach(cache), cache.layers[layer].alive is None)
        if generated % self.compression_interval:
            return name
        if self.compression_interval > 1:
            return None
        compacts = bool(self.compact_every) and generated % self.compact_every == 0
        return (*name, cache.layers[layer].tokens, generated > 1, compacts)

    def layer_kind(self, layer: int, n_layers: int) -> Hashable:
        """All layers are alike."""
        return ()

    def after_attention(self, engine: "Engine", cache: "Cache", layer: int, weights: Any) -> Program[None]:
        """Updates the state with the step's attention, and evicts at the end of each interval."""
        if not self.compression_ratio:
            return
        here, generated = cache.layers[layer], cache.position - cache.prompt + 1
        yield from staged(engine.meter, "evict", self.remember(engine, cache, here, weights))
        if generated % self.compression_interval == 0:
            yield from staged(engine.meter, "evict", self._shrink(engine, cache, here, weights, generated))

    def _shrink(
        self, engine: "Engine", cache: "Cache", here: "LayerCache", weights: Any, generated: int
    ) -> Program[None]:
        budget = self.budget(cache.prompt)
        until_now = budget if generated > self.compression_interval else self.counted(cache.prompt)
        going = until_now + self.compression_interval - budget
        first, protected = self.protected(cache.prompt)
        span = slice(first, here.tokens - protected)
        scores, bound = yield from self.rate(engine, cache, here, weights, span)
        yield from self.evict(engine, here, scores, first, budget, going, bound)
        if self.mode == "mask" and self.compact_every and generated % self.compact_every == 0:
            kept = yield from engine.kept_from(here.alive[:, : here.tokens], budget)
            yield from self.take(engine, here, kept, slice(0, here.tokens))
            here.alive = None

    def counted(self, prompt: int) -> int:
        """Number of prompt tokens that count when decoding begins."""
        return self.budget(prompt)

    @abstractmethod
    def protected(self, prompt: int) -> tuple[int, int]:
        """Numbers of first and of last tokens that never compete; together at most the budget."""

    def remember(self, engine: "Engine", cache: "Cache", here: "LayerCache", weights: Any) -> Program[None]:
        """Adds a step's attention weights, [heads, 1, tokens and the layer's room], to the layer's state."""
        return
        yield

    @abstractmethod
    def rate(
        self, engine: "Engine", cache: "Cache", here: "LayerCache", weights: Any, span: slice
    ) -> Program[tuple[Any, float]]:
        """Scores the tokens of a span: scores [groups, m], of which the lowest are evicted, and their bound."""


def reach(cache: "Cache") -> float:
    """A bound on the number of tokens so far, the current one included; a power of two, so that it lasts."""
    return float(1 << (cache.position + 1).bit_length())
