"""The dealer's side of `Source`: it expands both seeds and sends corrections."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from parties.engines.fss.randomness import bit_packing
from parties.engines.fss.randomness.constants import Constant
from parties.engines.fss.randomness.frames import FRAME_BYTES, FrameWriter, RandomnessReused
from parties.engines.fss.randomness.source import CLIENT, DEALER, SERVER, Bits, Dealt, Shape, Source
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

    def forward(self, tensors: Sequence[tuple[Tensor, tuple[int, ...]]]) -> None:
        """Sends what a recorded segment has dealt, in order, each tensor to its receivers.

        The tensors stay as they are until the segment is replayed again; by then they have been flushed.
        """
        for tensor, receivers in tensors:
            if CLIENT in receivers:
                self.to_client.put(tensor, stays=True)
            self._correct(tensor, stays=True)

    def mask(self, shape: Shape) -> Dealt:
        """See `Source`."""
        client_share = self._drawn(CLIENT, shape)
        return Dealt(client_share + self._drawn(SERVER, shape), client_share)

    def deal(self, shape: Shape, secret: Callable[[], Tensor]) -> Dealt:
        """See `Source`."""
        client_share, whole = self._drawn(CLIENT, shape), secret()
        if tuple(whole.shape) != tuple(shape):
            raise ValueError(f"a correlation of shape {tuple(shape)} was announced, {tuple(whole.shape)} was dealt")
        self._correct(whole - client_share)
        return Dealt(whole, client_share)

    def random_bits(self, shape: Shape) -> Bits:
        """See `Source`."""
        packed = (-(-math.prod(shape) // 8),)
        return bit_packing.unpack(
            self._drawn(CLIENT, packed, torch.uint8) ^ self._drawn(SERVER, packed, torch.uint8), shape
        )

    def deal_bytes(self, shape: Shape, secret: Callable[[], Bits]) -> tuple[Bits, Bits]:
        """See `Source`."""
        client_share, whole = self._drawn(CLIENT, shape, torch.uint8), secret()
        self._correct(whole ^ client_share)
        return whole, client_share

    def seeds(self, count: int) -> tuple[Bits, Bits]:
        """See `Source`."""
        return self._drawn(CLIENT, (count, 16), torch.uint8), self._drawn(SERVER, (count, 16), torch.uint8)

    def broadcast(self, shape: Shape, secret: Callable[[], Bits]) -> Bits:
        """See `Source`."""
        whole = secret()
        if tuple(whole.shape) != tuple(shape):
            raise ValueError(f"bytes of shape {tuple(shape)} were announced, {tuple(whole.shape)} were dealt")
        if self.recorder is not None:
            self.recorder.send(whole, CLIENT, SERVER)
            return whole
        self.to_client.put(whole)
        self._correct(whole)
        return whole

    def _drawn(self, rank: int, shape: Shape, dtype: torch.dtype = torch.int64) -> Tensor:
        if self.recorder is not None:
            return self.recorder.own(shape, dtype, rank)
        return (self.client if rank == CLIENT else self.server).draw(shape, dtype)

    def _correct(self, tensor: Tensor, *, stays: bool = False) -> None:
        if self.recorder is not None:
            self.recorder.send(tensor, SERVER)
            return
        self.to_server.put(tensor, stays=stays)
        if max(self.to_server.size, self.to_client.size) >= FRAME_BYTES:
            self.flush()
