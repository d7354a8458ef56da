"""Openings that a program requests, and their exchange over a link; the dealer takes part in none.

The openings of a round are one message each way: a digest of four bytes of the program so far, a digest of four bytes
of the public constants used so far, then ring elements, then packed bits. The round is accounted to the stage of its
first opening; with `parallel` that is the stage of the first program.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parties.engines.fss.randomness.constants import DIGEST_BYTES, Constants, ConstantsDiffer, encoded
from parties.engines.fss.randomness.frames import RandomnessReused
from parties.engines.fss.randomness.source import Dealt, Source
from parties.errors import OutOfStep, PartyError
from parties.metering.meter import StageMeter
from parties.transport.fixed_frames import FixedFrames
from parties.transport.frame import HEADER_BYTES
from parties.transport.link import Link

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PLACE_BYTES = 8
PROGRAM_BYTES = PLACE_BYTES - DIGEST_BYTES
MOST_KEPT_BYTES = 1 << 26
"""Of a frame whose memory an interpreted round leaves to the next ones."""
Exchange = Callable[[Sequence[Any]], Sequence[Any]]
Array = NDArray[Any]


class Pad:
    """A fresh mask that hides one value, once.

    Args:
        source: This party's correlated randomness.
        shape: Shape of the value.
    """

    def __init__(self, source: Source, shape: Sequence[int]) -> None:
        self.dealt: Dealt = source.mask(shape)
        self._used = False

    def hide(self, share: Tensor) -> Tensor:
        """Returns the share plus this party's share of the mask.

        Raises:
            RandomnessReused: The mask was used before; two uses would reveal the difference of the two values.
        """
        if self._used:
            raise RandomnessReused("a mask was about to hide a second value; draw a fresh one for each opening")
        self._used = True
        return share + self.dealt.share


@dataclass(frozen=True)
class Opening:
    """One tensor to be opened.

    Attributes:
        hidden: This party's masked share, int64 (shares are added) or packed bits, uint8 (shares are XORed); at the
            dealer the placeholder for the opened tensor.
        stage: The stage to which the round's time and bytes are accounted.
        limit_bits: The opened value is declared to be below 2^limit_bits.
        pad: This party's share of the mask, for checks in a simulation.
    """

    hidden: Tensor
    stage: str
    limit_bits: int = 64
    pad: Tensor | None = field(default=None, repr=False)

    @property
    def kind(self) -> str:
        """Either `words` or `bits`, followed by the shape."""
        return f"{'bits' if self.hidden.dtype == torch.uint8 else 'words'}{tuple(self.hidden.shape)}"


def announced(wanted: Sequence[Opening]) -> tuple[bytes, bytes]:
    """Returns what a round adds to the digests of the program and of the constants."""
    kinds = b"".join(opening.kind.encode() for opening in wanted)
    return kinds, b"".join(encoded(opening.limit_bits) for opening in wanted)


def dealer_openings(wanted: Sequence[Opening]) -> list[Any]:
    """Stands for an exchange at the dealer, who sees no opening and continues with its own placeholders."""
    return [opening.hidden for opening in wanted]


class Opener:
    """Opens over the link between client and server.

    Args:
        peer: Link to the other computing party.
        meter: The party's stage meter.
        constants: The public constants that the party has used.
        pinned: Whether a GPU copies to and from the frames.
    """

    def __init__(self, peer: Link, meter: StageMeter, constants: Constants, *, pinned: bool = False) -> None:
        self.peer, self.meter, self.constants = peer, meter, constants
        self._room = _Room(pinned=pinned)
        self._program = hashlib.blake2b(digest_size=PROGRAM_BYTES)
        self._frames: WeakValueDictionary[int, FixedFrames] = WeakValueDictionary()

    def fixed_frames(self, size: int) -> FixedFrames:
        """Returns frames that all recorded rounds of a size share, since each ends before the next one begins."""
        if (frames := self._frames.get(size)) is None:
            frames = self._frames[size] = FixedFrames(size)
        return frames

    def __call__(self, wanted: Sequence[Opening]) -> list[Any]:
        """Exchanges one round and returns the opened tensors.

        Raises:
            OutOfStep: The peer is at another point of the program.
            ConstantsDiffer: The peer is at the same point but has used other public constants.
        """
        with self.meter.stage(wanted[0].stage):
            program, constants = announced(wanted)
            frames = self._room.frames(PLACE_BYTES + sum(opening.hidden.nbytes for opening in wanted))
            for place, opening in zip(_octets(frames.payload, wanted), wanted, strict=True):
                place.copy_(opening.hidden.contiguous().view(-1).view(torch.uint8))
            self.swap_fixed(program, constants, frames, ())
            return [
                _opened(opening.hidden, theirs)
                for opening, theirs in zip(wanted, _octets(frames.received, wanted), strict=True)
            ]

    def swap_fixed(
        self,
        program: bytes,
        constants: "ReadableBuffer",
        frames: FixedFrames,
        moves: Sequence[tuple[Array, Array]],
        results: Sequence[tuple[Callable[..., Any], Array, Array, Array]] = (),
    ) -> None:
        """Exchanges one round over memory that exists; all in one function, since recorded rounds are many.

        Args:
            program: What the round adds to the digest of the program.
            constants: What it adds to the digest of the constants.
            frames: The frames; the payload begins with room for the place.
            moves: What is copied before, and where to: to the payload, and to `constants`.
            results: A function that combines both parties' arrays, and these, and where the opened numbers go.

        Raises:
            OutOfStep: The peer is at another point of the program.
            ConstantsDiffer: The peer is at the same point but has used other public constants.
        """
        for there, array in moves:
            there[...] = array
        mine, digest = self._program, self.constants.state
        mine.update(program)
        digest.update(constants)
        frames.payload[:PLACE_BYTES] = place = mine.digest() + digest.digest()[:DIGEST_BYTES]
        self.peer.swap(frames)
        if frames.received[:PLACE_BYTES] != place:
            self.peer.close()
            raise self._difference(place, bytes(frames.received[:PLACE_BYTES]))
        for combine, own, theirs, opened in results:
            combine(own, theirs, out=opened)

    def _difference(self, mine: bytes, theirs: bytes) -> PartyError:
        peer, stage = self.peer.peer, self.meter.current
        if mine[:PROGRAM_BYTES] == theirs[:PROGRAM_BYTES]:
            return ConstantsDiffer(peer, stage)
        return OutOfStep(peer, stage, f"place {mine.hex()}", f"place {theirs.hex()}")


class _Room:
    """Memory for the frames of interpreted rounds, of which each ends before the next one begins.

    Args:
        pinned: Whether a GPU copies to and from it.
    """

    def __init__(self, *, pinned: bool) -> None:
        self._pinned = pinned
        self._sides = self._made(0)

    def frames(self, size: int) -> FixedFrames:
        """Returns frames of payloads of so many bytes, over what earlier ones have left there."""
        length = HEADER_BYTES + size
        if length > MOST_KEPT_BYTES:
            sides = self._made(length)
        else:
            if length > self._sides[0].numel():
                self._sides = self._made(1 << (length - 1).bit_length())
            sides = self._sides
        left = iter(sides)
        return FixedFrames(size, lambda _: next(left)[:length].numpy().data)

    def _made(self, length: int) -> list[Tensor]:
        return [torch.empty(length, dtype=torch.uint8, pin_memory=self._pinned) for _ in range(2)]


def _octets(payload: memoryview, wanted: Sequence[Opening]) -> Iterator[Tensor]:
    """Yields the bytes of each opening in a payload; words after packed bits may not be aligned there."""
    octets, start = torch.frombuffer(payload, dtype=torch.uint8), PLACE_BYTES
    for opening in wanted:
        yield octets[start : start + opening.hidden.nbytes]
        start += opening.hidden.nbytes


def _opened(mine: Tensor, theirs: Tensor) -> Tensor:
    """Returns the opened tensor.

    Args:
        mine: This party's.
        theirs: The bytes of the peer's.
    """
    other = torch.empty(mine.shape, dtype=mine.dtype, device=mine.device)
    other.view(-1).view(torch.uint8).copy_(theirs)
    return combined(mine, other)


def split(octets: memoryview, arrays: Sequence[Array]) -> Iterator[Array]:
    """Yields memory for the elements of each array, one after the other."""
    start = 0
    for array in arrays:
        yield np.frombuffer(octets, array.dtype, array.size, start)
        start += array.nbytes


def combined(mine: Tensor, theirs: Tensor) -> Tensor:
    """Returns the opened tensor: shares of words are added, of packed bits XORed."""
    return mine ^ theirs if mine.dtype == torch.uint8 else mine + theirs
