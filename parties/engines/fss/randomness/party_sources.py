"""The computing parties' sides of `Source`: the client expands its seed, the server receives corrections."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from parties.engines.fss.kernels import bit_packing
from parties.engines.fss.randomness.constants import Constant, Constants
from parties.engines.fss.randomness.frames import FrameReader
from parties.engines.fss.randomness.source import CLIENT, SERVER, Bits, Dealt, Shape, Source
from parties.engines.keystream import Keystream
from parties.metering.meter import StageMeter


class ComputingSource(Source):
    """The client's or the server's side.

    Args:
        meter: Provides the current stage of a program.
        own: The keystream whose seed this party shares with the dealer.
        frames: The dealer's stream to this party.

    Attributes:
        constants: The public constants that this party has used.
    """

    def __init__(self, meter: StageMeter, own: Keystream, frames: FrameReader) -> None:
        super().__init__(meter)
        self.own, self.frames, self.constants = own, frames, Constants()

    def note(self, constant: Constant) -> None:
        """See `Source`."""
        self.constants.note(constant)

    def begin(self, epoch: int) -> None:
        """See `Source`."""
        self.epoch = epoch
        self.frames.begin(epoch)
        self.own.begin(epoch)

    def mask(self, shape: Shape) -> Dealt:
        """See `Source`."""
        words = self.own.words(shape).to(self.device)
        return Dealt(words, words)

    def random_bits(self, shape: Shape) -> Bits:
        """See `Source`."""
        return bit_packing.unpack(self._own_bytes((-(-math.prod(shape) // 8),)), shape)

    def seeds(self, count: int) -> tuple[Bits, Bits]:
        """See `Source`."""
        own = self._own_bytes((count, 16))
        return own, own

    def broadcast(self, shape: Shape, secret: Callable[[], Bits]) -> Bits:  # noqa: ARG002 - only the dealer knows it
        """See `Source`."""
        return self._dealt_bytes(shape)

    def _own_bytes(self, shape: Shape) -> Tensor:
        return self.own.bytes(shape).to(self.device)

    def _dealt_bytes(self, shape: Shape) -> Tensor:
        return torch.from_numpy(self.frames.take(shape, np.uint8)).to(self.device)


class ClientSource(ComputingSource):
    """The client expands all of its shares from its seed."""

    rank = CLIENT

    def deal(self, shape: Shape, secret: Callable[[], Tensor]) -> Dealt:  # noqa: ARG002 - only the dealer knows it
        """See `Source`."""
        return self.mask(shape)

    def deal_bytes(self, shape: Shape, secret: Callable[[], Bits]) -> tuple[Bits, Bits]:  # noqa: ARG002
        """See `Source`."""
        own = self._own_bytes(shape)
        return own, own


class ServerSource(ComputingSource):
    """The server receives its shares of what is dealt: the secret minus the client's share."""

    rank = SERVER

    def deal(self, shape: Shape, secret: Callable[[], Tensor]) -> Dealt:  # noqa: ARG002 - only the dealer knows it
        """See `Source`."""
        words = torch.from_numpy(self.frames.take(shape, np.int64)).to(self.device)
        return Dealt(words, words)

    def deal_bytes(self, shape: Shape, secret: Callable[[], Bits]) -> tuple[Bits, Bits]:  # noqa: ARG002
        """See `Source`."""
        own = self._dealt_bytes(shape)
        return own, own
