"""A digest of every public constant that a party has used: tables, rotary angles, masks, declared bounds.

Each host computes its constants in floating point, and processors and libraries differ in the last place. If a single
encoded constant differed, X would differ between the parties and every later result would be random. So each opening
carries the digest, and the parties stop at the first opening after the difference.
"""

from collections.abc import Callable
from dataclasses import dataclass

import xxhash
from torch import Tensor

from parties.errors import PartyError

DIGEST_BYTES = 4
"""Enough for accidental differences between honest hosts; it need not resist a search for collisions."""

Constant = Tensor | bytes | int


@dataclass(frozen=True)
class Known:
    """Public fixed-point numbers that may change from token to token, with a bound that does not.

    Attributes:
        integers: Int64.
        scale: Fraction bits.
        limit: All |numbers| are at most so large.
    """

    integers: Tensor
    scale: int
    limit: float

    def reshape(self, *shape: int) -> "Known":
        """Returns the same numbers in another shape."""
        return Known(self.integers.reshape(*shape), self.scale, self.limit)


class ConstantsDiffer(PartyError):  # noqa: N818 - named for what happened
    """The peer has used other public constants."""

    def __init__(self, peer: str, stage: str) -> None:
        super().__init__(peer, stage)

    def __str__(self) -> str:
        peer, stage = self.args
        return (
            f"{peer} computes with other public constants than this party (tables, rotary angles, masks, bounds or the "
            f"session's permutation key), in or before stage {stage}: results would be random numbers; run the same "
            f"version with the same torch and numpy on both hosts, and the same kind of processor"
        )


def encoded(constant: Constant) -> bytes:
    """Returns what the digest takes of a constant."""
    if isinstance(constant, Tensor):
        return bytes(constant.cpu().numpy().tobytes())
    return b"%d;" % constant if isinstance(constant, int) else constant


class Constants:
    """The constants used so far, in order.

    Attributes:
        state: The digest so far, which takes what `encoded` returns.
    """

    def __init__(self) -> None:
        self.state = xxhash.xxh3_64()

    def note(self, constant: Constant) -> None:
        """Adds an encoded constant; of a tensor the elements, not the shape."""
        self.state.update(encoded(constant))

    def digest(self) -> bytes:
        """Returns the digest, 4 bytes."""
        return self.state.digest()[:DIGEST_BYTES]

    def snapshot(self) -> Callable[[], None]:
        """Returns a function that forgets what is noted from here on, any number of times."""
        kept = self.state.copy()

        def restore() -> None:
            self.state = kept.copy()

        return restore
