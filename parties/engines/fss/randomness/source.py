"""Correlated randomness as each party sees it.

Client and server share one seed each with the dealer and draw from it what is uniformly random; what must fit together
is corrected on one side, the server's, by what the dealer sends. All three call the same methods in the same order, for
they run the same program: the dealer knows the secrets that are to be dealt, the others pass functions that they never
call.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parties.engines.fss.randomness.constants import Constant, Constants
from parties.engines.fss.randomness.dcf import Permutation
from parties.engines.fss.randomness.inbox import FRAME_BYTES, Inbox, MaterialReused, Outbox
from parties.engines.fss.randomness.retries import Retries
from parties.engines.keystream import Keystream
from parties.metering.meter import StageMeter
from parties.options import Comparison

Shape = Sequence[int]
Bits = NDArray[np.uint8]
CLIENT, SERVER, DEALER = 0, 1, 2


class Dealt(NamedTuple):
    """A number that is random or dealt: this party's share of it.

    Attributes:
        share: additive share; at the dealer the number itself.
        first: at the dealer the client's share; at a party the same as `share`.
    """

    share: Tensor
    first: Tensor


class Source(ABC):
    """Where a party's correlated randomness comes from.

    Attributes:
        rank: CLIENT, SERVER or DEALER.
        meter: knows the stage that a program is in.
        comparison: how signs are found, `dcf` or `prefix`; the same at all three.
        permutation: of the comparison keys' generator; the session's, the same at all three. There is none before it is
            set.
        retries: counts truncation failures and the public chances of them.
        device: where a party's numbers are and what is done to them is done; results do not depend on it. Bits stay on
            the CPU.
        declared: hears of each value of which a bound was declared; a simulation, which has both parties' parts, checks
            it.
        epoch: the one that was begun last.
    """

    rank: ClassVar[int]
    permutation: Permutation

    def __init__(self, meter: StageMeter) -> None:
        self.meter = meter
        self.comparison: Comparison = "dcf"
        self.device = torch.device("cpu")
        self.declared: Callable[[Any], None] = lambda _: None
        self.retries = Retries()
        self.epoch = 0

    @abstractmethod
    def begin(self, epoch: int) -> None:
        """Starts an epoch: randomness of other epochs is neither used nor used again."""

    @abstractmethod
    def note(self, constant: Constant) -> None:
        """Is told of each public constant where it is used: both computing parties must use the same."""

    def stand_in(self, shape: Shape) -> Tensor:
        """At the dealer, who has no additive shares, what stands for one: zeros, in no memory."""
        return torch.zeros((), dtype=torch.int64).expand(tuple(shape))

    @abstractmethod
    def mask(self, shape: Shape) -> Dealt:
        """Fresh uniform ring elements. Costs nothing."""

    @abstractmethod
    def shared(self, shape: Shape, secret: Callable[[], Tensor]) -> Dealt:
        """Additive shares of the dealer's `secret`, int64: 8 offline bytes an element, to the server."""

    def shared_each(self, shapes: Sequence[Shape], secrets: Sequence[Callable[[], Tensor]]) -> list[Tensor]:
        """The share of each of several secrets, the same as by a call of `shared` for each."""
        if not shapes:
            return []
        sizes = [math.prod(shape) for shape in shapes]
        flat = self.shared((sum(sizes),), lambda: torch.cat([secret().reshape(-1) for secret in secrets])).share
        return [part.reshape(tuple(shape)) for part, shape in zip(torch.split(flat, sizes), shapes, strict=True)]

    @abstractmethod
    def random_bits(self, shape: Shape) -> Bits:
        """XOR shares of fresh uniform bits, one a byte. Costs nothing."""

    @abstractmethod
    def shared_octets(self, shape: Shape, secret: Callable[[], Bits]) -> tuple[Bits, Bits]:
        """XOR shares of the dealer's bytes: their size in offline bytes, to the server.

        Returns:
            This party's share, at the dealer the secret; and, at the dealer, the client's share.
        """

    def shared_bits(self, shape: Shape, secret: Callable[[], Bits]) -> Bits:
        """XOR shares of the dealer's bits, one a byte: an eighth of a byte each on the wire, to the server."""
        count = math.prod(shape)
        share, _ = self.shared_octets((-(-count // 8),), lambda: np.packbits(secret()))
        return np.unpackbits(share, count=count).reshape(tuple(shape))

    @abstractmethod
    def seeds(self, count: int) -> tuple[Bits, Bits]:
        """Seeds of 16 bytes that only their owner and the dealer know, [count, 16].

        Returns:
            A party's own twice; at the dealer the client's and the server's.
        """

    @abstractmethod
    def told(self, shape: Shape, secret: Callable[[], Bits]) -> Bits:
        """Bytes that the dealer tells both parties: its size in offline bytes to each."""


class ComputingSource(Source):
    """The client's or the server's side.

    Args:
        meter: knows the stage that a program is in.
        own: the stream whose seed this party shares with the dealer.
        inbox: what the dealer sends.

    Attributes:
        constants: the public constants that this party has used.
    """

    def __init__(self, meter: StageMeter, own: Keystream, inbox: Inbox) -> None:
        super().__init__(meter)
        self.own, self.inbox, self.constants = own, inbox, Constants()

    def note(self, constant: Constant) -> None:
        """See `Source`."""
        self.constants.note(constant)

    def begin(self, epoch: int) -> None:
        """See `Source`."""
        self.epoch = epoch
        self.inbox.begin(epoch)
        self.own.begin(epoch)

    def mask(self, shape: Shape) -> Dealt:
        """See `Source`."""
        words = self.own.words(shape).to(self.device)
        return Dealt(words, words)

    def random_bits(self, shape: Shape) -> Bits:
        """See `Source`."""
        return self.own.bits(shape)

    def seeds(self, count: int) -> tuple[Bits, Bits]:
        """See `Source`."""
        own = np.frombuffer(self.own.octets(16 * count), dtype=np.uint8).reshape(count, 16)
        return own, own

    def told(self, shape: Shape, secret: Callable[[], Bits]) -> Bits:  # noqa: ARG002 - the dealer's
        """See `Source`."""
        return self.inbox.take(shape, np.uint8)


class ClientSource(ComputingSource):
    """The client draws all of its shares."""

    rank = CLIENT

    def shared(self, shape: Shape, secret: Callable[[], Tensor]) -> Dealt:  # noqa: ARG002 - the dealer's
        """See `Source`."""
        return self.mask(shape)

    def shared_octets(self, shape: Shape, secret: Callable[[], Bits]) -> tuple[Bits, Bits]:  # noqa: ARG002
        """See `Source`."""
        own = np.frombuffer(self.own.octets(math.prod(shape)), dtype=np.uint8).reshape(tuple(shape))
        return own, own


class ServerSource(ComputingSource):
    """The server is sent what the client's shares lack."""

    rank = SERVER

    def shared(self, shape: Shape, secret: Callable[[], Tensor]) -> Dealt:  # noqa: ARG002 - the dealer's
        """See `Source`."""
        words = torch.from_numpy(self.inbox.take(shape, np.int64)).to(self.device)
        return Dealt(words, words)

    def shared_octets(self, shape: Shape, secret: Callable[[], Bits]) -> tuple[Bits, Bits]:  # noqa: ARG002
        """See `Source`."""
        own = self.inbox.take(shape, np.uint8)
        return own, own


class DealerSource(Source):
    """The dealer draws what both parties draw, and sends corrections.

    Args:
        meter: knows the stage that a program is in.
        client: stream shared with the client.
        server: stream shared with the server.
        to_client: takes what the client must be told.
        to_server: takes what the server must be told, and its corrections.

    Attributes:
        silent: nothing is sent: what is dealt was dealt before, and only its masks are needed.
    """

    rank = DEALER

    def __init__(
        self, meter: StageMeter, client: Keystream, server: Keystream, to_client: Outbox, to_server: Outbox
    ) -> None:
        super().__init__(meter)
        self.client, self.server = client, server
        self.to_client, self.to_server = to_client, to_server
        self.silent = False
        self._last = 0

    def begin(self, epoch: int) -> None:
        """See `Source`. What is sent is sent once: permutations are fresh each time, and two would tell the first.

        Raises:
            MaterialReused: the epoch is not later than all that were sent.
        """
        self.epoch = epoch
        if not self.silent:
            if epoch <= self._last:
                raise MaterialReused(
                    f"epoch {epoch} was about to be dealt after epoch {self._last}; deal each epoch once"
                )
            self._last = epoch
        for stream in (self.client, self.server):
            stream.begin(epoch)
        for outbox in (self.to_client, self.to_server):
            outbox.begin(epoch)

    def note(self, constant: Constant) -> None:
        """Nothing: the dealer sees no opening, where constants are compared."""

    def flush(self) -> None:
        """Sends what has gathered; the server first, so that it never waits for what the client's link holds up."""
        for outbox in (self.to_server, self.to_client):
            if self.silent:
                outbox.drop()
            else:
                outbox.flush()

    def mask(self, shape: Shape) -> Dealt:
        """See `Source`."""
        first = self.client.words(shape)
        return Dealt(first + self.server.words(shape), first)

    def shared(self, shape: Shape, secret: Callable[[], Tensor]) -> Dealt:
        """See `Source`."""
        first, whole = self.client.words(shape), secret()
        if tuple(whole.shape) != tuple(shape):
            raise ValueError(f"a correlation of shape {tuple(shape)} was announced, {tuple(whole.shape)} was dealt")
        self._correct((whole - first).numpy())
        return Dealt(whole, first)

    def random_bits(self, shape: Shape) -> Bits:
        """See `Source`."""
        return self.client.bits(shape) ^ self.server.bits(shape)

    def shared_octets(self, shape: Shape, secret: Callable[[], Bits]) -> tuple[Bits, Bits]:
        """See `Source`."""
        first, whole = np.frombuffer(self.client.octets(math.prod(shape)), dtype=np.uint8), secret()
        first = first.reshape(whole.shape)
        self._correct(whole ^ first)
        return whole, first

    def seeds(self, count: int) -> tuple[Bits, Bits]:
        """See `Source`."""
        both = (np.frombuffer(s.octets(16 * count), dtype=np.uint8) for s in (self.client, self.server))
        first, second = (octets.reshape(count, 16) for octets in both)
        return first, second

    def told(self, shape: Shape, secret: Callable[[], Bits]) -> Bits:
        """See `Source`."""
        whole = secret()
        if whole.shape != tuple(shape):
            raise ValueError(f"bytes of shape {tuple(shape)} were announced, {whole.shape} were dealt")
        self.to_client.put(whole)
        self._correct(whole)
        return whole

    def _correct(self, array: NDArray[Any]) -> None:
        self.to_server.put(array)
        if max(self.to_server.size, self.to_client.size) >= FRAME_BYTES:
            self.flush()
