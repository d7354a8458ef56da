"""Look-ups in public tables at secret places: one round, whatever the table holds.

From a masked x the place is known up to the mask: (X >> t) - (r >> t) mod N, which is floor(x / 2^t) or one more. The
dealer XOR-shares the one-hot vector of (r >> t) mod N; each party sums the public table, turned by X >> t, over its
bits. The sums u_0 and u_1 differ by s T[i] with a sign s = +-1 that only the dealer knows: Pika (Wagh, PETS 2022) with
its tree cut to the leaves. s u is opened under a mask; s itself goes into the product that follows.
"""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from parties.engines.fss.arithmetic import ring
from parties.engines.fss.arithmetic.products import Secret
from parties.engines.fss.arithmetic.values import Additive, Masked
from parties.engines.fss.kernels import loops
from parties.engines.fss.randomness.source import CLIENT, DEALER, Bits, Source

Integers = NDArray[np.int64]


@dataclass(eq=False)
class Tables:
    """Tables of 2^width integers each, looked up at the same places.

    Attributes:
        values: [tables, rows, 2^width]; row j serves the elements whose last axis is at j, or there is one row for all.
    """

    values: Integers

    @property
    def width(self) -> int:
        """Log2 of a table's length."""
        return int(self.values.shape[2]).bit_length() - 1

    @cached_property
    def digest(self) -> bytes:
        """Names the values."""
        return xxhash.xxh3_128_digest(self.values.tobytes())

    def sums(self, turn: Tensor, bits: Bits) -> Tensor:
        """Sum over j of bit j times T[turn - j], for each table: [tables, n], where `turn` is.

        Args:
            turn: int64 [n], 0 to 2^width - 1.
            bits: packed, [n, 2^width / 8].
        """
        if turn.is_cuda:
            from parties.engines.fss.kernels import look_ups  # Triton, which only a GPU needs

            return look_ups.table_sums(_mirrored(self, turn.device), torch.from_numpy(bits).to(turn.device), turn)
        sums = torch.empty(len(self.values), len(turn), dtype=torch.int64)
        loops.table_sums(_mirrored(self, turn.device).numpy(), bits, turn.numpy(), sums.numpy())
        return sums


@cache
def _mirrored(tables: Tables, device: torch.device) -> Tensor:
    """Each table backwards and twice in a row, so that a turned one is a stretch of it."""
    return torch.from_numpy(np.ascontiguousarray(np.tile(tables.values[:, :, ::-1], 2))).to(device)


@dataclass(frozen=True)
class Found:
    """What a look-up leaves to be opened, and the dealer's sign that belongs to it.

    Attributes:
        signed: s T[i] for each table, [tables, ...], scale 0.
        sign: for `product`: shape and number.
    """

    signed: Additive
    sign: Secret


def look_up(source: Source, public: Tensor, mask: Tensor, start: int, tables: Tables) -> Found:
    """Finds T[(x >> start) mod N] or its right neighbour for each table T; local.

    2^width / 8 offline bytes an element, to the server.

    Args:
        source: correlated randomness.
        public: X of the places.
        mask: the dealer's r; not used by the others.
        start: bits below a cell.
        tables: what to look up; a row of its own for each place of the last axis, or one for all.
    """
    length = 1 << tables.width
    shape = torch.Size(public.shape)
    octets = (shape.numel(), length // 8)
    place = public if source.rank != DEALER else mask
    source.note(tables.digest)
    turn = ring.low_bits(place, start, tables.width).reshape(-1)
    bits, first = source.shared_octets(octets, lambda: _one_hot(turn.numpy(), length))
    if source.rank == DEALER:
        signs = torch.from_numpy(_signs(turn.numpy(), first)).reshape(shape)
        share = source.stand_in((len(tables.values), *shape))
    else:
        signs = torch.empty(0)
        sums = tables.sums(turn, bits).reshape(len(tables.values), *shape)
        share = sums if source.rank == CLIENT else -sums
    limit = 2.0 * float(np.abs(tables.values).max()) + 1.0
    return Found(Additive(source, share, 0, limit), (shape, lambda: signs))


def digit(x: Masked, start: int, width: int) -> Masked:
    """Bits start .. start + width - 1 of X less those of r: a number in (-2^width, 2^width) that is exact, no round.

    x = 2^start digit + rest holds modulo 2^(start + width), with |rest| < 2^start: good below a cell that is looked up,
    or below a truncated number. 8 offline bytes an element, to the
    server; no danger zone.
    """
    source = x.source
    dealt = source.shared(x.shape, lambda: ring.low_bits(x.mask, start, width))
    public = dealt.first if source.rank == DEALER else ring.low_bits(x.public, start, width)
    return Masked(source, public, dealt.share, x.scale - start, 2.0 ** (start + width - x.scale), x.epoch)


def _one_hot(places: Integers, length: int) -> Bits:
    packed = np.zeros((len(places), length // 8), dtype=np.uint8)
    packed[np.arange(len(places)), places >> 3] = 128 >> (places & 7)
    return packed


def _signs(places: Integers, first: Bits) -> Integers:
    """+1 where the client holds the one of its pair of bits, else -1."""
    bit = (first[np.arange(len(places)), places >> 3] >> (7 - (places & 7))) & 1
    signs: Integers = bit.astype(np.int64) * 2 - 1
    return signs
