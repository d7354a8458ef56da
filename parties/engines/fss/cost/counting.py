"""The dealer's randomness without any: for walking a program to count what it takes."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from parties.engines.fss.cost.meta_tensors import hollow
from parties.engines.fss.randomness.dealer_source import DealerSource
from parties.engines.fss.randomness.frames import FRAME_BYTES, MARK_BYTES, FrameWriter
from parties.engines.fss.randomness.source import Bits, Dealt, Shape
from parties.engines.keystream import Keystream
from parties.metering.meter import StageMeter


class HollowStream(Keystream):
    """A keystream that is counted and not drawn.

    Attributes:
        size: bytes so far.
    """

    def __init__(self) -> None:
        self.size = 0

    def begin(self, epoch: int) -> None:
        """Every epoch is alike."""

    def octets(self, count: int) -> memoryview:
        """Zeros."""
        self.size += count
        return memoryview(bytearray(count))

    def words(self, shape: Shape) -> Tensor:
        """Elements that are nowhere."""
        self.size += 8 * math.prod(shape)
        return hollow(shape)


class HollowOutbox(FrameWriter):
    """Counts frames as the dealer would cut them.

    Args:
        count: is told the bytes of each frame.
    """

    def __init__(self, count: Callable[[int], None]) -> None:
        super().__init__(lambda frame: count(len(frame)))
        self._count = count

    def put(self, array: Any) -> None:
        """Adds the size of an array."""
        self.size += array.nbytes

    def flush(self) -> None:
        """Counts what has gathered."""
        for start in range(0, self.size, FRAME_BYTES):
            self._count(MARK_BYTES + min(FRAME_BYTES, self.size - start))
        self.size = 0


class HollowSource(DealerSource):
    """The dealer's randomness without any: nothing is drawn, no secret is computed, all sizes are counted.

    Args:
        meter: knows the stage that a program is in.
        to_client: is told the bytes of each frame to the client.
        to_server: is told those to the server.

    Attributes:
        drawn: what the client draws, which is more than what the server does.
        told_bytes: what the dealer has told both parties: keys of comparisons.
        shared_bytes: what it has shared bit by bit: one-hot vectors of look-ups.
    """

    def __init__(self, meter: StageMeter, to_client: Callable[[int], None], to_server: Callable[[int], None]) -> None:
        self.drawn = HollowStream()
        super().__init__(meter, self.drawn, HollowStream(), HollowOutbox(to_client), HollowOutbox(to_server))
        self.told_bytes = self.shared_bytes = 0

    def placeholder(self, shape: Shape) -> Tensor:
        """See `Source`."""
        return hollow(shape)

    def deal(self, shape: Shape, secret: Callable[[], Tensor]) -> Dealt:  # noqa: ARG002 - never asked for
        """See `Source`."""
        whole = self.client.words(shape)
        self._correct(_nothing(shape, np.int64))
        return Dealt(whole, whole)

    def deal_bytes(self, shape: Shape, secret: Callable[[], Bits]) -> tuple[Bits, Bits]:  # noqa: ARG002
        """See `Source`."""
        whole = _nothing(shape, np.uint8)
        self.drawn.size += whole.nbytes
        self.shared_bytes += whole.nbytes
        self._correct(whole)
        return whole, whole

    def broadcast(self, shape: Shape, secret: Callable[[], Bits]) -> Bits:  # noqa: ARG002
        """See `Source`."""
        self.told_bytes += math.prod(shape)
        return super().broadcast(shape, lambda: _nothing(shape, np.uint8))


def _nothing(shape: Shape, dtype: type[np.generic]) -> Any:
    """Zeros that take no memory."""
    return np.broadcast_to(dtype(0), tuple(shape))
