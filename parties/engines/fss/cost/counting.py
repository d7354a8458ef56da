"""A dealer's randomness that is counted and not drawn, for dry runs of programs."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from parties.engines.fss.cost.meta_tensors import meta_tensor
from parties.engines.fss.randomness.dealer_source import DealerSource
from parties.engines.fss.randomness.frames import FRAME_BYTES, MARK_BYTES, FrameWriter, in_words
from parties.engines.fss.randomness.source import Bits, Dealt, Shape
from parties.engines.keystream import Keystream
from parties.metering.meter import StageMeter


class CountingStream(Keystream):
    """A keystream that is counted and not drawn.

    Attributes:
        size: Bytes so far.
    """

    def __init__(self) -> None:
        self.size = 0

    def begin(self, epoch: int) -> None:
        """Does nothing: the count continues over epochs."""

    def octets(self, count: int) -> memoryview:
        """Returns zeros."""
        self.size += count
        return memoryview(bytearray(count))

    def draw(self, shape: Shape, dtype: torch.dtype = torch.int64) -> Tensor:
        """A meta tensor."""
        self.size += in_words(math.prod(shape) * dtype.itemsize)
        return meta_tensor(shape, dtype)


class CountingWriter(FrameWriter):
    """Counts frames as the dealer would cut them.

    Args:
        count: Called with the bytes of each frame.
    """

    def __init__(self, count: Callable[[int], None]) -> None:
        super().__init__(lambda frame: count(len(frame)))
        self._count = count

    def put(self, tensor: Tensor, *, stays: bool = False) -> None:  # noqa: ARG002 - only its size counts
        """Adds the size of a tensor."""
        self.size += in_words(tensor.nbytes)

    def flush(self) -> None:
        """Counts the frames of the buffered bytes."""
        for start in range(0, self.size, FRAME_BYTES):
            self._count(MARK_BYTES + min(FRAME_BYTES, self.size - start))
        self.size = 0


class CountingSource(DealerSource):
    """The dealer's side of a dry run: nothing is drawn, no secret is computed, all sizes are counted.

    Args:
        meter: Provides the current stage of a program.
        to_client: Called with the bytes of each frame to the client.
        to_server: Called with those to the server.

    Attributes:
        drawn: The client's keystream; the client draws more than the server.
        comparison_levels: Levels of comparison trees that each computing party evaluates.
        dealt_bytes: Bytes dealt as XOR shares: one-hot vectors of look-ups, and bits.
    """

    def __init__(self, meter: StageMeter, to_client: Callable[[int], None], to_server: Callable[[int], None]) -> None:
        self.drawn = CountingStream()
        super().__init__(meter, self.drawn, CountingStream(), CountingWriter(to_client), CountingWriter(to_server))
        self.comparison_levels = self.dealt_bytes = 0

    def placeholder(self, shape: Shape) -> Tensor:
        """See `Source`."""
        return meta_tensor(shape)

    def evaluated(self, levels: int) -> None:
        """See `Source`."""
        self.comparison_levels += levels

    def deal(self, shape: Shape, secret: Callable[[], Tensor]) -> Dealt:  # noqa: ARG002 - never evaluated
        """See `Source`."""
        whole = self.client.words(shape)
        self._correct(whole)
        return Dealt(whole, whole)

    def deal_bytes(self, shape: Shape, secret: Callable[[], Bits]) -> tuple[Bits, Bits]:  # noqa: ARG002
        """See `Source`."""
        whole = meta_tensor(shape, torch.uint8)
        self.drawn.size += in_words(whole.nbytes)
        self.dealt_bytes += whole.nbytes
        self._correct(whole)
        return whole, whole

    def broadcast(self, shape: Shape, secret: Callable[[], Bits]) -> Bits:  # noqa: ARG002
        """See `Source`."""
        return super().broadcast(shape, lambda: meta_tensor(shape, torch.uint8))
