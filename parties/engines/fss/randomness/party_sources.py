"""The computing parties' sides of `Source`: the client expands its seed, the server receives corrections."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from parties.engines.fss.randomness import bit_packing
from parties.engines.fss.randomness.constants import Constant, Constants
from parties.engines.fss.randomness.frames import FrameReader
from parties.engines.fss.randomness.source import CLIENT, SERVER, Bits, Dealt, Shape, Source
from parties.engines.fss.randomness.streams import Stream
from parties.metering.meter import StageMeter

_NUMPY: dict[torch.dtype, type[np.generic]] = {torch.int64: np.int64, torch.uint8: np.uint8}


class ComputingSource(Source):
    """The client's or the server's side.

    Args:
        meter: Provides the current stage of a program.
        keystream: The keystream whose seed this party shares with the dealer, on any device.
        frames: The dealer's stream to this party.

    Attributes:
        constants: The public constants that this party has used.
    """

    def __init__(self, meter: StageMeter, keystream: Stream, frames: FrameReader) -> None:
        super().__init__(meter)
        self.keystream, self.frames, self.constants = keystream, frames, Constants()
        self._copied: list[Tensor] = []

    def note(self, constant: Constant) -> None:
        """See `Source`."""
        (self.constants if self.recorder is None else self.recorder).note(constant)

    def begin(self, epoch: int) -> None:
        """See `Source`."""
        self.epoch = epoch
        if self._copied:
            torch.cuda.synchronize(self.device)
            self._copied.clear()
        self.frames.begin(epoch)
        self.keystream.begin(epoch)

    def mask(self, shape: Shape) -> Dealt:
        """See `Source`."""
        words = self._own(shape, torch.int64)
        return Dealt(words, words)

    def random_bits(self, shape: Shape) -> Bits:
        """See `Source`."""
        return bit_packing.unpack(self._own((-(-math.prod(shape) // 8),), torch.uint8), shape)

    def seeds(self, count: int) -> tuple[Bits, Bits]:
        """See `Source`."""
        own = self._own((count, 16), torch.uint8)
        return own, own

    def broadcast(self, shape: Shape, secret: Callable[[], Bits]) -> Bits:  # noqa: ARG002 - only the dealer knows it
        """See `Source`."""
        return self._dealt(shape, torch.uint8)

    def _own(self, shape: Shape, dtype: torch.dtype) -> Tensor:
        if self.recorder is not None:
            return self.recorder.own(shape, dtype)
        return self.keystream.draw(shape, dtype).to(self.device)

    def _dealt(self, shape: Shape, dtype: torch.dtype) -> Tensor:
        if self.recorder is not None:
            return self.recorder.dealt(shape, dtype)
        if self.device.type == "cpu":
            return torch.from_numpy(self.frames.take(shape, _NUMPY[dtype]))
        dealt = torch.empty(tuple(shape), dtype=dtype, device=self.device)
        self._copied += self.frames.copy_to(dealt.view(-1).view(torch.uint8))
        return dealt


class ClientSource(ComputingSource):
    """The client expands all of its shares from its seed."""

    rank = CLIENT

    def deal(self, shape: Shape, secret: Callable[[], Tensor]) -> Dealt:  # noqa: ARG002 - only the dealer knows it
        """See `Source`."""
        return self.mask(shape)

    def deal_bytes(self, shape: Shape, secret: Callable[[], Bits]) -> tuple[Bits, Bits]:  # noqa: ARG002
        """See `Source`."""
        own = self._own(shape, torch.uint8)
        return own, own


class ServerSource(ComputingSource):
    """The server receives its shares of what is dealt: the secret minus the client's share."""

    rank = SERVER

    def deal(self, shape: Shape, secret: Callable[[], Tensor]) -> Dealt:  # noqa: ARG002 - only the dealer knows it
        """See `Source`."""
        words = self._dealt(shape, torch.int64)
        return Dealt(words, words)

    def deal_bytes(self, shape: Shape, secret: Callable[[], Bits]) -> tuple[Bits, Bits]:  # noqa: ARG002
        """See `Source`."""
        own = self._dealt(shape, torch.uint8)
        return own, own
