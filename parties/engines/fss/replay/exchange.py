"""The rounds of a recorded segment: what was announced when it was recorded, over buffers that exist already."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from parties.engines.fss.arithmetic.opening import Opener, announced
from parties.engines.fss.randomness.constants import Constants
from parties.engines.fss.replay.recorder import Round


@dataclass
class BoundRound:
    """A round with its arrays.

    Attributes:
        stage: Stage of the round.
        program: What it adds to the digest of the program.
        constants: What it adds to the digest of the constants.
        hidden: This party's arrays.
        opened: Where the opened numbers go; if the round is `staged`, the peer's arrays.
        staged: Whether the tapes add both.
    """

    stage: str
    program: bytes
    constants: bytes
    hidden: Sequence[NDArray[Any]]
    opened: Sequence[NDArray[Any]]
    staged: bool

    @classmethod
    def of(cls, made: Round) -> "BoundRound":
        """Binds a recorded round."""
        program, constants = announced(made.openings)
        hidden, opened = ([tensor.reshape(-1).numpy() for tensor in side] for side in (made.hidden, made.opened))
        return cls(made.openings[0].stage, program, constants, hidden, opened, made.staged)

    def exchange(self, opener: Opener) -> None:
        """Opens the round over the link."""
        with opener.meter.stage(self.stage):
            theirs, start = opener.swap(self.program, self.constants, self.hidden), 0
            for mine, opened in zip(self.hidden, self.opened, strict=True):
                other = np.frombuffer(theirs, mine.dtype, mine.size, start)
                if self.staged:
                    opened[...] = other
                else:
                    (np.bitwise_xor if mine.dtype == np.uint8 else np.add)(mine, other, out=opened)
                start += mine.nbytes


def note(constants: Constants, notes: Sequence[bytes | Tensor]) -> None:
    """Adds a part's constants to the digest."""
    for constant in notes:
        constants.note(constant)
