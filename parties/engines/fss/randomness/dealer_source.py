"""The dealer's side of `Source`: it expands both seeds and sends corrections."""

import math
from collections.abc import Callable

from torch import Tensor

from parties.engines.fss.kernels import bit_packing
from parties.engines.fss.randomness.constants import Constant
from parties.engines.fss.randomness.frames import FRAME_BYTES, FrameWriter, RandomnessReused
from parties.engines.fss.randomness.source import DEALER, Bits, Dealt, Shape, Source
from parties.engines.keystream import Keystream
from parties.metering.meter import StageMeter


class DealerSource(Source):
    """The dealer expands what both parties expand, and sends corrections.

    Args:
        meter: Provides the current stage of a program.
        client: The keystream shared with the client.
        server: The keystream shared with the server.
        to_client: The stream of broadcasts to the client.
        to_server: The stream of broadcasts and corrections to the server.

    Attributes:
        silent: Whether nothing is sent: the epoch was dealt before, and only its masks are needed.
    """

    rank = DEALER

    def __init__(
        self, meter: StageMeter, client: Keystream, server: Keystream, to_client: FrameWriter, to_server: FrameWriter
    ) -> None:
        super().__init__(meter)
        self.client, self.server = client, server
        self.to_client, self.to_server = to_client, to_server
        self.silent = False
        self._last = 0

    def begin(self, epoch: int) -> None:
        """See `Source`. An epoch is sent once: a second one would have new permutations and reveal the first.

        Raises:
            RandomnessReused: The epoch is not later than all that were sent.
        """
        self.epoch = epoch
        if not self.silent:
            if epoch <= self._last:
                raise RandomnessReused(
                    f"epoch {epoch} was about to be dealt after epoch {self._last}; deal each epoch once"
                )
            self._last = epoch
        for stream in (self.client, self.server):
            stream.begin(epoch)
        for frames in (self.to_client, self.to_server):
            frames.begin(epoch)

    def note(self, constant: Constant) -> None:
        """Does nothing: the dealer takes part in no opening, where constants are compared."""

    def flush(self) -> None:
        """Sends what is buffered; to the server first, so that it never waits for the client's link."""
        for frames in (self.to_server, self.to_client):
            if self.silent:
                frames.drop()
            else:
                frames.flush()

    def mask(self, shape: Shape) -> Dealt:
        """See `Source`."""
        client_share = self.client.words(shape)
        return Dealt(client_share + self.server.words(shape), client_share)

    def deal(self, shape: Shape, secret: Callable[[], Tensor]) -> Dealt:
        """See `Source`."""
        client_share, whole = self.client.words(shape), secret()
        if tuple(whole.shape) != tuple(shape):
            raise ValueError(f"a correlation of shape {tuple(shape)} was announced, {tuple(whole.shape)} was dealt")
        self._correct(whole - client_share)
        return Dealt(whole, client_share)

    def random_bits(self, shape: Shape) -> Bits:
        """See `Source`."""
        packed = (-(-math.prod(shape) // 8),)
        return bit_packing.unpack(self.client.bytes(packed) ^ self.server.bytes(packed), shape)

    def deal_bytes(self, shape: Shape, secret: Callable[[], Bits]) -> tuple[Bits, Bits]:
        """See `Source`."""
        client_share, whole = self.client.bytes(shape), secret()
        self._correct(whole ^ client_share)
        return whole, client_share

    def seeds(self, count: int) -> tuple[Bits, Bits]:
        """See `Source`."""
        return self.client.bytes((count, 16)), self.server.bytes((count, 16))

    def broadcast(self, shape: Shape, secret: Callable[[], Bits]) -> Bits:
        """See `Source`."""
        whole = secret()
        if tuple(whole.shape) != tuple(shape):
            raise ValueError(f"bytes of shape {tuple(shape)} were announced, {tuple(whole.shape)} were dealt")
        self.to_client.put(whole)
        self._correct(whole)
        return whole

    def _correct(self, tensor: Tensor) -> None:
        self.to_server.put(tensor)
        if max(self.to_server.size, self.to_client.size) >= FRAME_BYTES:
            self.flush()
