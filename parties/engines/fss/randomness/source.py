"""Correlated randomness as each party sees it: the interface.

Client and server each share a seed with the dealer and expand it to what is uniformly random. Where shares must add up
to a secret of the dealer's, the dealer sends the server a correction. All three parties run the same program, so they
call the same methods in the same order: the dealer evaluates the secrets, the other two pass functions that they never
call.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from parties.engines.bounds import Bound
from parties.engines.fss.bounds import BOUNDS
from parties.engines.fss.randomness import bit_packing
from parties.engines.fss.randomness.constants import Constant, Known
from parties.engines.fss.randomness.dcf import Permutation
from parties.engines.fss.randomness.retries import Retries
from parties.metering.meter import StageMeter
from parties.options import Comparison, SoftmaxForm

Shape = Sequence[int]
Condition = Callable[[], Exception]
Bits = Tensor
"""Bits or bytes, uint8; XOR-shared bits are stored one per byte."""
CLIENT, SERVER, DEALER = 0, 1, 2


class Dealt(NamedTuple):
    """A random or dealt tensor, as one party holds it.

    Attributes:
        share: Additive share, int64; at the dealer the tensor itself.
        client_share: At the dealer the client's share; at a computing party the same as `share`.
    """

    share: Tensor
    client_share: Tensor


class Recorder(ABC):
    """Stands for the sources and the checks of a party while a program is recorded."""

    @abstractmethod
    def own(self, shape: Shape, dtype: torch.dtype, stream: int = 0) -> Tensor:
        """The place of the next elements of a keystream of this party's: the dealer's are those of both parties."""

    @abstractmethod
    def dealt(self, shape: Shape, dtype: torch.dtype) -> Tensor:
        """The place of the next elements that the dealer sends."""

    @abstractmethod
    def send(self, tensor: Tensor, *receivers: int) -> None:
        """Notes a tensor that the dealer sends."""

    @abstractmethod
    def note(self, constant: Constant) -> None:
        """Notes a public constant."""

    @abstractmethod
    def varying(self, numbers: Callable[[int], Tensor], *, by_row: bool = False) -> Tensor:
        """The place of public numbers that change from token to token, or with each row that the cache grows by."""

    @abstractmethod
    def own_numbers(self, numbers: Callable[[], Tensor]) -> Tensor:
        """The place of numbers that the party alone has, for which each replay asks."""

    @abstractmethod
    def overwrites(self, rows: Tensor) -> None:
        """Called before rows of a cache are written in place: the program's run must leave them as they are."""

    @abstractmethod
    def flag(self) -> Tensor:
        """The place of the result of the next check, [1], which each replay finds false."""

    @abstractmethod
    def refuse(self, failed: Tensor, failure: Condition) -> None:
        """Notes a check."""


class Source(ABC):
    """A party's source of correlated randomness.

    Attributes:
        rank: CLIENT, SERVER or DEALER.
        meter: Provides the current stage of a program.
        comparison: The comparison protocol, `dcf` or `prefix`; the same at all three parties.
        softmax: The form of the softmax's coarse sums, `tables` or `dpf`; the same at all three parties.
        bounds: The declared bounds, those of the engine or of the model; the same at all three parties.
        permutation: The fixed-key permutation of the comparison keys' generator; one per session, the same at all three
            parties. Unset until the session has drawn it.
        retries: Counts truncation failures and their public probabilities.
        device: Where a computing party keeps its ring elements. Results do not depend on it.
        recorder: Takes what a program draws, notes and checks while it is recorded (`parties.engines.fss.replay`).
        declared: Called with each value of which a bound is declared; a simulation, which has both parties' shares,
            checks the bound.
        epoch: The current epoch.
    """

    rank: ClassVar[int]
    permutation: Permutation

    def __init__(self, meter: StageMeter) -> None:
        self.meter = meter
        self.comparison: Comparison = "dcf"
        self.softmax: SoftmaxForm = "tables"
        self.bounds: Mapping[str, Bound] = BOUNDS
        self.device = torch.device("cpu")
        self.declared: Callable[[Any], None] = lambda _: None
        self.retries = Retries()
        self.recorder: Recorder | None = None
        self.epoch = 0

    @abstractmethod
    def begin(self, epoch: int) -> None:
        """Starts an epoch; randomness of other epochs is not used from here on.

        Raises:
            RandomnessReused: The epoch was started before.
        """

    @abstractmethod
    def note(self, constant: Constant) -> None:
        """Adds a public constant, at the point of its use, to the digest that client and server compare."""

    def varying(self, integers: Callable[[int], Tensor], scale: int, limit: float, *, by_row: bool = False) -> Known:
        """Returns public numbers that change from token to token; see `Engine.varying`.

        Args:
            integers: Encodes the numbers of the token so many steps after the current one.
            scale: Fraction bits.
            limit: All |numbers| are at most so large.
            by_row: Whether the numbers follow from the rows of the cache: those of so many more rows.
        """
        made = integers(0) if self.recorder is None else self.recorder.varying(integers, by_row=by_row)
        return Known(made.to(self.device), scale, limit)

    def own_numbers(self, numbers: Callable[[], Tensor]) -> Tensor:
        """Returns numbers that this party alone has, such as its token; a recorded segment asks for them each time."""
        made = numbers() if self.recorder is None else self.recorder.own_numbers(numbers)
        return made.to(self.device)

    def read(self, rows: Tensor, first: int, count: int) -> Tensor:
        """Returns rows first .. first + count - 1 of [n, d]; a recorded segment reads at the token's place."""
        if self.recorder is None:
            return rows[first : first + count]
        places = torch.arange(first, first + count)
        return rows.index_select(0, self.recorder.varying(lambda later: places + later).to(rows.device))

    def write(self, rows: Tensor, new: Tensor, place: int) -> Tensor:
        """Returns rows [heads, n, d] with [heads, m, d] from a public place on; in place if it is recorded."""
        count = new.shape[1]
        if self.recorder is None:
            return torch.cat([rows[:, :place], new, rows[:, place + count :]], 1)
        places = torch.arange(place, place + count)
        self.recorder.overwrites(rows[:, place : place + count])
        where = self.recorder.varying(lambda more: places + more, by_row=True)
        return rows.index_copy_(1, where.to(rows.device), new)

    def flag(self) -> Tensor:
        """Returns a false boolean, [1], to be set and handed to the next call of `refuse`."""
        if self.recorder is not None:
            return self.recorder.flag()
        return torch.zeros(1, dtype=torch.bool, device=self.device)

    def refuse(self, failed: Tensor, failure: Condition) -> None:
        """Raises a failure if a public condition holds; every attempt of a segment checks the same conditions.

        Args:
            failed: A boolean of what both parties see, [] or [1].
            failure: Makes the exception.
        """
        if self.recorder is not None:
            self.recorder.refuse(failed, failure)
        elif failed:
            raise failure()

    def placeholder(self, shape: Shape) -> Tensor:
        """The dealer's placeholder for an additive share, which it does not have: zeros that take no memory."""
        return torch.zeros((), dtype=torch.int64).expand(tuple(shape))

    def evaluated(self, levels: int) -> None:  # noqa: B027 - nothing to do but in a dry run
        """Called with the levels of comparison trees that a computing party evaluates; a dry run counts them."""

    @abstractmethod
    def mask(self, shape: Shape) -> Dealt:
        """Draws fresh uniform ring elements. No communication."""

    @abstractmethod
    def deal(self, shape: Shape, secret: Callable[[], Tensor]) -> Dealt:
        """Deals additive shares of the dealer's `secret`, int64: 8 offline bytes per element, to the server.

        Raises:
            ValueError: The secret does not have the announced shape.
        """

    def deal_each(self, shapes: Sequence[Shape], secrets: Sequence[Callable[[], Tensor]]) -> list[Tensor]:
        """Deals several secrets in one draw; the shares are those of one call of `deal` per secret."""
        if not shapes:
            return []
        sizes = [math.prod(shape) for shape in shapes]
        flat = self.deal((sum(sizes),), lambda: torch.cat([secret().reshape(-1) for secret in secrets])).share
        return [part.reshape(tuple(shape)) for part, shape in zip(torch.split(flat, sizes), shapes, strict=True)]

    @abstractmethod
    def random_bits(self, shape: Shape) -> Bits:
        """Draws XOR shares of fresh uniform bits, one bit per byte. No communication."""

    @abstractmethod
    def deal_bytes(self, shape: Shape, secret: Callable[[], Bits]) -> tuple[Bits, Bits]:
        """Deals XOR shares of the dealer's bytes: as many offline bytes, to the server.

        Returns:
            This party's share, at the dealer the secret; and the client's share, which only the dealer uses.
        """

    def deal_bits(self, shape: Shape, secret: Callable[[], Bits]) -> Bits:
        """Deals XOR shares of the dealer's bits, one bit per byte: 1/8 offline byte per bit, to the server."""
        count = math.prod(shape)
        share, _ = self.deal_bytes((-(-count // 8),), lambda: bit_packing.pack(secret()))
        return bit_packing.unpack(share, shape)

    @abstractmethod
    def seeds(self, count: int) -> tuple[Bits, Bits]:
        """Draws seeds of 16 bytes that only their owner and the dealer know, [count, 16]. No communication.

        Returns:
            At a computing party its own seeds twice; at the dealer the client's and the server's.
        """

    @abstractmethod
    def broadcast(self, shape: Shape, secret: Callable[[], Bits]) -> Bits:
        """Sends bytes of the dealer's to both parties: as many offline bytes to each.

        Raises:
            ValueError: The bytes do not have the announced shape.
        """
