"""Look-ups in public tables at secret indices: one round, whatever the table holds.

For a masked x the index is (X >> t) - (r >> t) mod N, which is floor(x / 2^t) or one more. The dealer XOR-shares the
one-hot vector of (r >> t) mod N; each party rotates the public table by X >> t and sums it over the bits of its share.
The sums u_0 and u_1 differ by s T[i] with a sign s = +-1 that only the dealer knows: Pika (Wagh, PETS 2022) with its
tree reduced to the leaves. s T[i] is opened under a mask, and s is the dealer's factor in the product that follows.
"""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from parties.engines.fss.arithmetic import ring
from parties.engines.fss.arithmetic.multiplication import Secret
from parties.engines.fss.arithmetic.values import Additive, Masked
from parties.engines.fss.functions.curves import curves_of
from parties.engines.fss.kernels.call import call
from parties.engines.fss.kernels.table_sums import PART, table_sums
from parties.engines.fss.randomness.source import CLIENT, DEALER, Bits, Source
from parties.engines.fss.recording.tracer import untraced

Integers = NDArray[np.int64]


@dataclass(eq=False)
class Tables:
    """Tables of 2^width integers each, looked up at the same indices.

    Attributes:
        values: Int64, [tables, rows, 2^width]; row j is for the elements at j of the last axis, a single row for all.
    """

    values: Integers

    def __post_init__(self) -> None:
        """Checks the length.

        Raises:
            ValueError: It is too short for a word of bits.
        """
        if self.values.shape[2] < PART:
            raise ValueError(f"tables of {self.values.shape[2]} cells; at least {PART}")

    @property
    def width(self) -> int:
        """log2 of a table's length."""
        return int(self.values.shape[2]).bit_length() - 1

    @cached_property
    def digest(self) -> bytes:
        """Hash of the values, 16 bytes."""
        return xxhash.xxh3_128_digest(self.values.tobytes())

    def sums(self, turn: Tensor, bits: Bits) -> Tensor:
        """Sums bit j times T[turn - j] over j, for each table: int64, [tables, n], on the device of `turn`.

        Args:
            turn: Rotations, int64, [n], 0 to 2^width - 1.
            bits: Packed bits, uint8, [n, 2^width / 8].
        """
        sums = torch.empty(len(self.values), len(turn), dtype=torch.int64, device=turn.device)
        arguments = (*curves_on(turn.device, self), bits.contiguous(), turn.contiguous(), sums)
        if turn.is_cuda:
            from parties.engines.fss.kernels import look_ups  # Triton, which only a GPU needs

            call(look_ups.table_sums, *arguments)
        else:
            call(table_sums, *arguments)
        return sums


@cache
def curves_on(device: torch.device, tables: Tables) -> tuple[Tensor, Tensor]:
    """Returns the tables on a device as `table_sums` reads them."""
    curves, lines = curves_of(tables.values)
    with untraced():
        return torch.from_numpy(curves).to(device), torch.from_numpy(lines).to(device)


@dataclass(frozen=True)
class Found:
    """The result of a look-up, to be opened, with the sign that only the dealer knows.

    Attributes:
        signed: s T[i] for each table, [tables, ...], scale 0.
        sign: The dealer's factor s for `multiply`.
    """

    signed: Additive
    sign: Secret


def window(length: int, low: int) -> Integers:
    """Returns the integers, from `low` on, that the indices of a table stand for modulo its length."""
    places = np.arange(length)
    return (places - low) % length + low


def look_up(source: Source, public: Tensor, mask: Tensor, start: int, tables: Tables) -> Found:
    """Looks up T[(x >> start) mod N] or its right neighbour for each table T; local.

    2^width / 8 offline bytes per element, to the server.

    Args:
        source: This party's correlated randomness.
        public: X of the numbers.
        mask: r at the dealer; not used by the others.
        start: Bits below a cell.
        tables: The tables; one row per index of the last axis, or one for all.
    """
    length = 1 << tables.width
    shape = torch.Size(public.shape)
    octets = (shape.numel(), length // 8)
    place = public if source.rank != DEALER else mask
    source.note(tables.digest)
    turn = ring.low_bits(place, start, tables.width).reshape(-1)
    bits, client_share = source.deal_bytes(octets, lambda: _one_hot(turn, length))
    if source.rank == DEALER:
        signs = _signs(turn, client_share).reshape(shape)
        share = source.placeholder((len(tables.values), *shape))
    else:
        signs = torch.empty(0)
        sums = tables.sums(turn, bits).reshape(len(tables.values), *shape)
        share = sums if source.rank == CLIENT else -sums
    limit = 2.0 * float(np.abs(tables.values).max()) + 1.0
    return Found(Additive(source, share, 0, limit), (shape, lambda: signs))


def digit(x: Masked, start: int, width: int) -> Masked:
    """Subtracts bits start .. start + width - 1 of r from those of X: exact, in (-2^width, 2^width), no round.

    x = 2^start digit + rest holds modulo 2^(start + width), with |rest| < 2^start. It gives the bits below a cell of a
    look-up, or below a truncated number, and cannot fail. 8 offline bytes per element, to the server.
    """
    source = x.source
    dealt = source.deal(x.shape, lambda: ring.low_bits(x.mask, start, width))
    public = dealt.client_share if source.rank == DEALER else ring.low_bits(x.public, start, width)
    return Masked(source, public, dealt.share, x.scale - start, 2.0 ** (start + width - x.scale), x.epoch)


def _one_hot(places: Tensor, length: int) -> Bits:
    packed = torch.zeros(len(places), length // 8, dtype=torch.uint8)
    return packed.scatter_(1, (places >> 3).unsqueeze(1), (128 >> (places & 7)).to(torch.uint8).unsqueeze(1))


def _signs(places: Tensor, client_share: Bits) -> Tensor:
    """Returns +1 where the client's share of the one in the one-hot vector is 1, else -1."""
    octets = client_share.gather(1, (places >> 3).unsqueeze(1)).squeeze(1).long()
    return ((octets >> (7 - (places & 7))) & 1) * 2 - 1
