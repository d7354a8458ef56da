"""Sequences that decode side by side: a cache for each, one program for all."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, TypeVar

from parties.decoding.cache import Cache, LayerCache
from parties.engines.operations import Operations


@dataclass
class Batch:
    """The caches of sequences that take their tokens together.

    Each sequence has a policy's state and a selection of its own, and its own length, which is public. What an engine
    reads of a `Cache`, a batch has for all of its sequences.

    Attributes:
        sequences: The caches, at least one; after `fold` one for neighbours of equal shapes.
        token: The tokens that are decoded, one of each sequence, at their owner; see `Cache`.
    """

    sequences: Sequence[Cache]
    token: list[int] = field(default_factory=list)

    @property
    def layers(self) -> list[LayerCache]:
        """All layers of the first sequence, then those of the second, and so on."""
        return [layer for cache in self.sequences for layer in cache.layers]

    @property
    def tokens(self) -> tuple[int, ...]:
        """Cached tokens of each of `layers`. Public."""
        return tuple(layer.tokens for layer in self.layers)

    @property
    def position(self) -> int:
        """Position of the first sequence's next token; those of the others advance with it."""
        return self.sequences[0].position

    @position.setter
    def position(self, position: int) -> None:
        steps = position - self.position
        for cache in self.sequences:
            cache.position += steps

    @property
    def cached(self) -> tuple[int, ...]:
        """Cached tokens of each layer of each sequence. Public."""
        return tuple(layer.tokens for cache in self.sequences for layer in cache.layers for _ in range(cache.lanes))

    def fold(self, engine: Operations) -> None:
        """Puts neighbours of equal shapes into one cache, as further heads, and empties their own. Local.

        Their programs are then one program of more numbers, with as many operations as that of one sequence.
        """
        groups = [list(group) for _, group in groupby(self.sequences, key=_shape)]
        self.sequences = [group[0] if len(group) == 1 else _folded(engine, group) for group in groups]

    def snapshot(self) -> Callable[[], None]:
        """See `Cache.snapshot`."""
        sequences = self.sequences
        restores = [cache.snapshot() for cache in sequences]

        def restore() -> None:
            self.sequences = sequences
            for each in restores:
                each()

        return restore


Caches = Cache | Batch
"""The cache of one sequence, or those of several."""

AnyCaches = TypeVar("AnyCaches", bound=Caches)


def _shape(cache: Cache) -> tuple[Any, ...]:
    """What caches must have in common to be one."""
    return (cache.position, cache.prompt, *((name, tuple(value.shape)) for name, value in cache.values().items()))


def _folded(engine: Operations, caches: Sequence[Cache]) -> Cache:
    held, named = [cache.values() for cache in caches], dict[str, Any]()
    for cache in caches:
        cache.layers = Cache.empty(len(cache.layers)).layers
    for name in list(held[0]):  # both forms of a single value are in memory at once
        named[name] = engine.cat([values.pop(name) for values in held], dim=0)
    folded = Cache.from_values(len(caches[0].layers), caches[0].position, named)
    folded.prompt, folded.lanes = caches[0].prompt, len(caches)
    return folded


def by_sequence(steps: Sequence[Sequence[int]]) -> list[list[int]]:
    """The tokens of each sequence, from those of each step."""
    return [list(tokens) for tokens in zip(*steps, strict=True)]


def by_cache(caches: Caches, rows: Any) -> Iterator[tuple[Cache, Any]]:
    """Each cache, and the rows, [lanes, n], of its sequences, of [sequences, n]."""
    start = 0
    for cache in caches.sequences:
        yield cache, rows[start : start + cache.lanes]
        start += cache.lanes
