"""The rounds of a recorded segment: what was announced when it was recorded, over buffers that exist already."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from parties.engines.fss.arithmetic.opening import PLACE_BYTES, Opener, announced
from parties.engines.fss.randomness.constants import Constants
from parties.engines.fss.replay.recorder import Round
from parties.transport.frame import FixedFrames


@dataclass
class BoundRound:
    """A round with its arrays.

    Attributes:
        program: What it adds to the digest of the program.
        notes: Constants before the opening; see `Round`.
        constants: What the opening and the last of the notes add to the digest of the constants.
        frames: Memory of the frames of both parties.
        mine: For each opening this party's array, and where it goes in the frame.
        theirs: For each opening the function that combines both, this party's array, the peer's in its frame, and where
            the opened numbers go.
    """

    program: bytes
    notes: Sequence[bytes | Tensor]
    constants: bytes
    frames: FixedFrames
    mine: Sequence[tuple[NDArray[Any], NDArray[Any]]]
    theirs: Sequence[tuple[Callable[..., Any], NDArray[Any], NDArray[Any], NDArray[Any]]]

    @classmethod
    def of(cls, made: Round) -> "BoundRound":
        """Binds a recorded round."""
        program, constants = announced(made.openings)
        notes, last = list(made.notes), made.notes[-1] if made.notes else None
        if isinstance(last, bytes):
            notes, constants = notes[:-1], last + constants
        hidden, opened = ([tensor.reshape(-1).numpy() for tensor in side] for side in (made.hidden, made.opened))
        frames, start = FixedFrames(PLACE_BYTES + sum(array.nbytes for array in hidden)), PLACE_BYTES
        mine, theirs = [], []
        for array, result in zip(hidden, opened, strict=True):
            sent, received = (
                np.frombuffer(side, array.dtype, array.size, start) for side in (frames.payload, frames.received)
            )
            mine.append((sent, array))
            add = np.bitwise_xor if array.dtype == np.uint8 else np.add
            theirs.append((_received if made.staged else add, array, received, result))
            start += array.nbytes
        return cls(program, notes, constants, frames, mine, theirs)

    def exchange(self, opener: Opener) -> None:
        """Opens the round over the link; the stage is the caller's."""
        for sent, array in self.mine:
            sent[:] = array
        if self.notes:
            note(opener.constants, self.notes)
        opener.swap_fixed(self.program, self.constants, self.frames)
        for combine, array, received, opened in self.theirs:
            combine(array, received, out=opened)


def _received(_: NDArray[Any], theirs: NDArray[Any], out: NDArray[Any]) -> None:
    """Hands over what the peer sent: a graph adds both."""
    out[:] = theirs


def note(constants: Constants, notes: Sequence[bytes | Tensor]) -> None:
    """Adds a part's constants to the digest."""
    for constant in notes:
        constants.note(constant)
