"""The rounds of a recorded segment: what was announced when it was recorded, over buffers that exist already."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from torch import Tensor

from parties.engines.fss.arithmetic.opening import PLACE_BYTES, Array, Opener, announced, split
from parties.engines.fss.randomness.constants import Constants
from parties.engines.fss.replay.recorder import Round


class Notes:
    """Constants that a part of a segment adds to the digest, in memory that stays.

    Args:
        noted: Encoded constants, and the places of numbers that change.

    Attributes:
        octets: All of them, one after the other.
        moves: Where numbers that change go in it, and what they are.
    """

    def __init__(self, noted: Sequence[bytes | Tensor]) -> None:
        arrays = [np.frombuffer(part, np.uint8) if isinstance(part, bytes) else part.numpy() for part in noted]
        self.octets = memoryview(bytearray(sum(array.nbytes for array in arrays)))
        places = [place.reshape(array.shape) for place, array in zip(split(self.octets, arrays), arrays, strict=True)]
        moves = list(zip(places, arrays, strict=True))
        for place, array in moves:
            place[...] = array
        self.moves = [move for move, part in zip(moves, noted, strict=True) if isinstance(part, Tensor)]

    def add(self, constants: Constants) -> None:
        """Adds the constants to the digest."""
        for place, numbers in self.moves:
            place[...] = numbers
        constants.state.update(self.octets)


def bound(made: Round, opener: Opener) -> Callable[[], None] | None:
    """Returns what ends a part of a segment at a party: an exchange, or constants that are noted; None for neither."""
    if not made.openings:
        return partial(Notes(made.notes).add, opener.constants) if made.notes else None
    program, limits = announced(made.openings)
    notes = Notes([*made.notes, limits])
    hidden, opened = ([tensor.reshape(-1).numpy() for tensor in side] for side in (made.hidden, made.opened))
    frames = made.frames or opener.fixed_frames(PLACE_BYTES + sum(array.nbytes for array in hidden))
    sent, received = (split(side[PLACE_BYTES:], hidden) for side in (frames.payload, frames.received))
    results = [
        (_received if made.staged else np.bitwise_xor if mine.dtype == np.uint8 else np.add, mine, theirs, result)
        for mine, theirs, result in zip(hidden, received, opened, strict=True)
        if not _is_same(theirs, result)
    ]
    moves = [*notes.moves, *(move for move in zip(sent, hidden, strict=True) if not _is_same(*move))]
    return partial(opener.swap_fixed, program, notes.octets, frames, moves, results)


def _is_same(one: Array, other: Array) -> bool:
    """Whether both are the same memory: tapes of a GPU read and write the frames themselves."""
    return one.ctypes.data == other.ctypes.data


def _received(_: Array, theirs: Array, out: Array) -> None:
    """Hands over what the peer sent: a graph adds both."""
    out[:] = theirs
