"""What a program wants opened, and who opens it: over a link, in one process, or, at the dealer, nobody.

A round's openings are one message each way: four bytes that say where in the program a party is and four that name the
public constants it has used so far, then ring elements, then packed bits. The round belongs to the stage of its first
opening, where a program is `staged`; with `parallel` that is the stage of the first program.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from parties.engines.fss.randomness.constants import DIGEST_BYTES, Constants, ConstantsDiffer
from parties.engines.fss.randomness.inbox import MaterialReused
from parties.engines.fss.randomness.source import Bits, Dealt, Source
from parties.errors import OutOfStep, PartyError
from parties.metering.meter import StageMeter
from parties.transport.link import Link

PLACE_BYTES = 8
PROGRAM_BYTES = PLACE_BYTES - DIGEST_BYTES
Exchange = Callable[[Sequence[Any]], Sequence[Any]]


class Pad:
    """A fresh mask that hides one value, once."""

    def __init__(self, source: Source, shape: Sequence[int]) -> None:
        self.dealt: Dealt = source.mask(shape)
        self._used = False

    def hide(self, share: Tensor) -> Tensor:
        """The share plus this party's share of the mask.

        Raises:
            MaterialReused: the mask has hidden something before; twice would tell the difference of the two.
        """
        if self._used:
            raise MaterialReused("a mask was about to hide a second value; draw a fresh one for each opening")
        self._used = True
        return share + self.dealt.share


@dataclass(frozen=True)
class Opening:
    """One tensor to be opened.

    Attributes:
        hidden: this party's part, int64 (parts are added) or packed bits as bytes (parts are xored); at the dealer
            what stands for the opened tensor.
        stage: where the round's time and bytes belong.
        limit_bits: the opened value is declared to be below 2^limit_bits.
        pad: this party's share of the mask, for checks in one process.
    """

    hidden: Tensor | Bits
    stage: str
    limit_bits: int = 64
    pad: Tensor | None = field(default=None, repr=False)

    @property
    def kind(self) -> str:
        """`words` or `bits`, and the shape."""
        return f"{'words' if isinstance(self.hidden, Tensor) else 'bits'}{tuple(self.hidden.shape)}"


def dealers(wanted: Sequence[Opening]) -> list[Any]:
    """The dealer sees no opening; it goes on with its own stand-ins."""
    return [opening.hidden for opening in wanted]


class Opener:
    """Opens over a link.

    Args:
        peer: the other computing party.
        meter: the party's stage meter.
        constants: the public constants that the party has used.
    """

    def __init__(self, peer: Link, meter: StageMeter, constants: Constants) -> None:
        self.peer, self.meter, self._constants = peer, meter, constants
        self._program = hashlib.blake2b(digest_size=PROGRAM_BYTES)

    def __call__(self, wanted: Sequence[Opening]) -> list[Any]:
        """One round.

        Raises:
            OutOfStep: the other party is at another place of the program.
            ConstantsDiffer: it is at the same one, but has used other public constants.
        """
        with self.meter.stage(wanted[0].stage):
            for opening in wanted:
                self._program.update(opening.kind.encode())
                self._constants.note(opening.limit_bits)
            place = self._program.digest() + self._constants.digest()
            mine = place + b"".join(_octets(opening.hidden) for opening in wanted)
            theirs = self.peer.exchange(mine, alike=True)
            if theirs[:PLACE_BYTES] != place:
                self.peer.close()
                raise self._difference(place, bytes(theirs[:PLACE_BYTES]))
            return _combined(wanted, memoryview(theirs)[PLACE_BYTES:])

    def _difference(self, mine: bytes, theirs: bytes) -> PartyError:
        peer, stage = self.peer.peer, self.meter.current
        if mine[:PROGRAM_BYTES] == theirs[:PROGRAM_BYTES]:
            return ConstantsDiffer(peer, stage)
        return OutOfStep(peer, stage, f"place {mine.hex()}", f"place {theirs.hex()}")


def _octets(hidden: Tensor | Bits) -> bytes:
    return (hidden.cpu().contiguous().numpy() if isinstance(hidden, Tensor) else hidden).tobytes()


def _combined(wanted: Sequence[Opening], theirs: memoryview) -> list[Any]:
    opened: list[Any] = []
    start = 0
    for opening in wanted:
        mine = opening.hidden
        if isinstance(mine, Tensor):
            size = 8 * mine.numel()
            other = torch.from_numpy(np.frombuffer(theirs[start : start + size], np.int64).copy())
            opened.append(mine + other.reshape(mine.shape).to(mine.device))
        else:
            size = mine.size
            opened.append(mine ^ np.frombuffer(theirs[start : start + size], np.uint8).reshape(mine.shape))
        start += size
    return opened
