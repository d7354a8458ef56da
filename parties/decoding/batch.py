"""Sequences that decode side by side: a cache for each, one program for all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from parties.decoding.cache import Cache, LayerCache


@dataclass(frozen=True)
class Batch:
    """The caches of sequences that take their tokens together.

    Each sequence has a policy's state and a selection of its own, and its own length, which is public. What an engine
    reads of a `Cache`, a batch has for all of its sequences.

    Attributes:
        sequences: The caches, at least one.
    """

    sequences: Sequence[Cache]

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

    def snapshot(self) -> Callable[[], None]:
        """See `Cache.snapshot`."""
        restores = [cache.snapshot() for cache in self.sequences]

        def restore() -> None:
            for each in restores:
                each()

        return restore


Caches = Cache | Batch
"""The cache of one sequence, or those of several."""

AnyCaches = TypeVar("AnyCaches", bound=Caches)


def by_sequence(steps: Sequence[Sequence[int]]) -> list[list[int]]:
    """The tokens of each sequence, from those of each step."""
    return [list(tokens) for tokens in zip(*steps, strict=True)]
