"""AES in Triton kernels, by tables; AES-128 and AES-256 differ in the rounds and the key schedule.

Table look-ups at secret indices leave traces in a cache, as in every table-based AES.
"""

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from parties.engines.fss.kernels import aes


@triton.jit
def mixed(table, a, b, c, d):  # type: ignore[no-untyped-def]
    """Returns a column after SubBytes, ShiftRows and MixColumns: byte 0 of a, 1 of b, 2 of c, 3 of d."""
    first = tl.load(table + (a & 255)).to(tl.uint32, bitcast=True)
    second = tl.load(table + ((b >> 8) & 255)).to(tl.uint32, bitcast=True)
    third = tl.load(table + ((c >> 16) & 255)).to(tl.uint32, bitcast=True)
    fourth = tl.load(table + (d >> 24)).to(tl.uint32, bitcast=True)
    turned = (second << 8) | (second >> 24)
    return first ^ turned ^ ((third << 16) | (third >> 16)) ^ ((fourth << 24) | (fourth >> 8))


@triton.jit
def substituted(table, a, b, c, d):  # type: ignore[no-untyped-def]
    """Returns a column after SubBytes and ShiftRows; the S-box is in the second byte of the table."""
    first = (tl.load(table + (a & 255)) >> 8) & 255
    second = (tl.load(table + ((b >> 8) & 255)) >> 8) & 255
    third = (tl.load(table + ((c >> 16) & 255)) >> 8) & 255
    fourth = (tl.load(table + (d >> 24)) >> 8) & 255
    return (first | (second << 8) | (third << 16) | (fourth << 24)).to(tl.uint32, bitcast=True)


@triton.jit  # type: ignore[untyped-decorator]
def hashed(low, high, table, keys, ROUNDS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Computes AES(block) ^ block for blocks of two words, int64; columns of the state are little-endian words."""
    a = (low & 0xFFFFFFFF).to(tl.uint32) ^ tl.load(keys).to(tl.uint32, bitcast=True)
    b = ((low >> 32) & 0xFFFFFFFF).to(tl.uint32) ^ tl.load(keys + 1).to(tl.uint32, bitcast=True)
    c = (high & 0xFFFFFFFF).to(tl.uint32) ^ tl.load(keys + 2).to(tl.uint32, bitcast=True)
    d = ((high >> 32) & 0xFFFFFFFF).to(tl.uint32) ^ tl.load(keys + 3).to(tl.uint32, bitcast=True)
    for i in range(1, ROUNDS):
        e = mixed(table, a, b, c, d) ^ tl.load(keys + 4 * i).to(tl.uint32, bitcast=True)
        f = mixed(table, b, c, d, a) ^ tl.load(keys + 4 * i + 1).to(tl.uint32, bitcast=True)
        g = mixed(table, c, d, a, b) ^ tl.load(keys + 4 * i + 2).to(tl.uint32, bitcast=True)
        d = mixed(table, d, a, b, c) ^ tl.load(keys + 4 * i + 3).to(tl.uint32, bitcast=True)
        a, b, c = e, f, g
    e = substituted(table, a, b, c, d) ^ tl.load(keys + 4 * ROUNDS).to(tl.uint32, bitcast=True)
    f = substituted(table, b, c, d, a) ^ tl.load(keys + 4 * ROUNDS + 1).to(tl.uint32, bitcast=True)
    g = substituted(table, c, d, a, b) ^ tl.load(keys + 4 * ROUNDS + 2).to(tl.uint32, bitcast=True)
    h = substituted(table, d, a, b, c) ^ tl.load(keys + 4 * ROUNDS + 3).to(tl.uint32, bitcast=True)
    return low ^ (e.to(tl.int64) | (f.to(tl.int64) << 32)), high ^ (g.to(tl.int64) | (h.to(tl.int64) << 32))


@triton.jit  # type: ignore[untyped-decorator]
def lanes_of(POINTS: tl.constexpr, LANES: tl.constexpr):  # type: ignore[no-untyped-def]
    """Returns the lane of each element of [POINTS, LANES], and which column of a block it has: a block has four."""
    lane = tl.broadcast_to(tl.arange(0, LANES)[None, :], (POINTS, LANES))
    return lane, lane % 4


@triton.jit  # type: ignore[untyped-decorator]
def _turned(word, DISTANCE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Rotates words to the left."""
    return (word << DISTANCE) | (word >> (32 - DISTANCE))


@triton.jit  # type: ignore[untyped-decorator]
def hashed_columns(block, lane, column, table, keys, ROUNDS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Computes AES(block) ^ block as `hashed` does, but each column of a block in a lane of its own.

    A lone block then takes a third of the time: a lane has 4 look-ups a round instead of 16. Blocks are uint32,
    [points, lanes], each in four lanes; see `lanes_of`.
    """
    first = lane - column
    second, third, fourth = first + (column + 1) % 4, first + (column + 2) % 4, first + (column + 3) % 4
    a = block ^ tl.load(keys + column).to(tl.uint32, bitcast=True)
    for i in range(1, ROUNDS):
        b, c, d = tl.gather(a, second, 1), tl.gather(a, third, 1), tl.gather(a, fourth, 1)
        key = tl.load(keys + 4 * i + column).to(tl.uint32, bitcast=True)
        one = tl.load(table + (a & 255)).to(tl.uint32, bitcast=True)
        two = tl.load(table + ((b >> 8) & 255)).to(tl.uint32, bitcast=True)
        three = tl.load(table + ((c >> 16) & 255)).to(tl.uint32, bitcast=True)
        four = tl.load(table + (d >> 24)).to(tl.uint32, bitcast=True)
        a = key ^ one ^ _turned(two, 8) ^ _turned(three, 16) ^ _turned(four, 24)
    b, c, d = tl.gather(a, second, 1), tl.gather(a, third, 1), tl.gather(a, fourth, 1)
    return block ^ substituted(table, a, b, c, d) ^ tl.load(keys + 4 * ROUNDS + column).to(tl.uint32, bitcast=True)


@cache
def columns(device: torch.device) -> Tensor:
    """Returns the table of columns, int32, [256], on a device."""
    return torch.from_numpy(aes.column_table()).to(device)


def schedule(key: bytes, device: torch.device) -> Tensor:
    """Returns the key schedule of a key of 16 or 32 bytes, int32, [44] or [60], on a device."""
    return torch.from_numpy(aes.round_keys(key)).to(device)
