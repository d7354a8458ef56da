"""`dcf.evaluate` and `payload_dcf.evaluate` on a GPU: one thread evaluates the tree of a key at one point.

The permutation is that of `dcf`, AES with the session's public key, so that a key evaluates alike on every device. Of
few points several lanes evaluate a tree (`few_points`). Table look-ups at secret indices (`table_aes`) are at seeds of
one-time keys.
"""

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from parties.engines.fss.kernels import table_aes
from parties.engines.fss.kernels.bit_trees import LEAF_LEVELS
from parties.engines.fss.kernels.few_points import FEW, WARP, evaluated, evaluated_payload
from parties.engines.fss.kernels.payload_levels import MOST_LANES
from parties.engines.fss.kernels.table_aes import hashed

ROUNDS = 10
_THREADS = 128


@triton.jit(do_not_specialize=["x", "seeds", "words", "out", "n", "points", "party", "width", "inner"])  # type: ignore[untyped-decorator]
def _evaluated(  # type: ignore[no-untyped-def]
    x,
    seeds,
    words,
    out,
    table,
    keys,
    n,
    points,
    party,
    width,
    inner,
    LEAF: tl.constexpr,
    ROUNDS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Evaluates LANES points; names are those of `dcf.evaluate`."""
    point = tl.program_id(0) * LANES + tl.arange(0, LANES)
    inside = point < n * points
    number = tl.load(x + point, mask=inside, other=0)
    key = point // points
    low = tl.load(seeds + 2 * key, mask=inside, other=0) & ~7
    high = tl.load(seeds + 2 * key + 1, mask=inside, other=0)
    on = tl.zeros((LANES,), dtype=tl.int64) + party
    value = tl.zeros((LANES,), dtype=tl.int64)
    at = words + 2 * key.to(tl.int64)
    for level in range(width - LEAF):
        bit = (number >> (width - 1 - level)) & 1
        low, high = hashed(low ^ bit, high, table, keys, ROUNDS)
        word = tl.load(at, mask=inside, other=0) * on
        other = tl.load(at + 1, mask=inside, other=0) * on
        value ^= (low >> 1) ^ (word >> 2)
        on = (low ^ (word >> bit)) & 1
        low, high = (low ^ word) & ~7, high ^ other
        at += 2 * n
    low, high = hashed(low ^ 2, high, table, keys, ROUNDS)
    low ^= tl.load(at, mask=inside, other=0) * on
    high ^= tl.load(at + 1, mask=inside, other=0) * on
    place = number & inner
    half = tl.where(place >= 64, high, low)
    tl.store(out + point, ((value ^ (half >> (place & 63))) & 1).to(tl.uint8), mask=inside)


def evaluate(
    x: Tensor, seed: Tensor, key: Tensor, table: Tensor, keys: Tensor, shares: Tensor, party: int, width: int
) -> None:
    """Evaluates this party's XOR shares of [x < alpha]; see `dcf.evaluate`.

    Args:
        x: Public numbers, int64, [n, points], on the GPU; bits from `width` on are ignored.
        seed: This party's seeds, uint8, [n, 16].
        key: Correction words, uint8, [key_blocks, n, 16].
        table: AES's table on the GPU; see `constants`.
        keys: The key schedule of the session's permutation.
        shares: Output, uint8, [n, points], 0 or 1.
        party: 0 or 1.
        width: Number of bits compared.
    """
    n, points = x.shape
    if x.numel():
        inner, few = (1 << min(width, LEAF_LEVELS)) - 1, x.numel() <= FEW
        run, dtype, count = (evaluated, torch.int32, 1) if few else (_evaluated, torch.int64, _THREADS)
        run[(triton.cdiv(x.numel(), count),)](
            x, seed.view(dtype), key.view(dtype), shares, table, keys, n, points, party, width, inner, LEAF_LEVELS,
            ROUNDS, count, num_warps=-(-count // WARP),
        )  # fmt: skip


@triton.jit  # type: ignore[untyped-decorator]
def _lane(low, high, LANE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Returns one of the four elements of a block."""
    half = low if LANE < 2 else high
    return (half >> (32 * (LANE % 2))) & 0xFFFFFFFF


@triton.jit
def _corrected(block, at, on, inside):  # type: ignore[no-untyped-def]
    """Adds the correction at an address where the control bit is one."""
    return block + on * tl.load(at, mask=inside, other=0).to(tl.int64)


@triton.jit  # type: ignore[untyped-decorator]
def _leaf(low, high, place, LANE: tl.constexpr, LANES: tl.constexpr, CELLS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Returns one element of the cell of a leaf at a public place."""
    leaf = _lane(low, high, LANE)
    for cell in tl.static_range(1, CELLS):
        leaf = tl.where(place == cell, _lane(low, high, cell * LANES + LANE), leaf)
    return leaf


@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=["x", "seeds", "words", "values", "leaves", "out", "n", "points", "party", "width", "rest"]
)
def _evaluated_payload(  # type: ignore[no-untyped-def]
    x,
    seeds,
    words,
    values,
    leaves,
    out,
    table,
    keys,
    n,
    points,
    party,
    width,
    rest,
    LANES: tl.constexpr,
    CELLS: tl.constexpr,
    ROUNDS: tl.constexpr,
    POINTS: tl.constexpr,
):
    """Evaluates POINTS points; names are those of `payload_dcf.evaluate`; `first` to `fourth` are the lanes' sums."""
    point = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    inside = point < n * points
    number = tl.load(x + point, mask=inside, other=0)
    key = point // points
    low = tl.load(seeds + 2 * key, mask=inside, other=0) & ~7
    high = tl.load(seeds + 2 * key + 1, mask=inside, other=0)
    on = tl.zeros((POINTS,), dtype=tl.int64) + party
    first = tl.zeros((POINTS,), dtype=tl.int64)
    second, third, fourth = first, first, first
    at = words + 2 * key.to(tl.int64)
    value_at = values + LANES * key.to(tl.int64)
    for level in range(width - rest):
        bit = (number >> (width - 1 - level)) & 1
        value_low, value_high = hashed(low ^ bit ^ 4, high, table, keys, ROUNDS)
        low, high = hashed(low ^ bit, high, table, keys, ROUNDS)
        first += _corrected(_lane(value_low, value_high, 0), value_at, on, inside)
        if LANES > 1:
            second += _corrected(_lane(value_low, value_high, 1), value_at + 1, on, inside)
        if LANES > 2:
            third += _corrected(_lane(value_low, value_high, 2), value_at + 2, on, inside)
        if LANES > 3:
            fourth += _corrected(_lane(value_low, value_high, 3), value_at + 3, on, inside)
        word = tl.load(at, mask=inside, other=0) * on
        other = tl.load(at + 1, mask=inside, other=0) * on
        on = (low ^ (word >> bit)) & 1
        low, high = (low ^ word) & ~7, high ^ other
        at += 2 * n
        value_at += LANES * n
    low, high = hashed(low ^ 2, high, table, keys, ROUNDS)
    place = number & ((1 << rest) - 1)
    leaf_at = leaves + (key.to(tl.int64) * CELLS + place) * LANES
    sign = 1 - 2 * party
    out_at = out + LANES * point.to(tl.int64)
    first += _corrected(_leaf(low, high, place, 0, LANES, CELLS), leaf_at, on, inside)
    tl.store(out_at, (first * sign) & 0xFFFFFFFF, mask=inside)
    if LANES > 1:
        second += _corrected(_leaf(low, high, place, 1, LANES, CELLS), leaf_at + 1, on, inside)
        tl.store(out_at + 1, (second * sign) & 0xFFFFFFFF, mask=inside)
    if LANES > 2:
        third += _corrected(_leaf(low, high, place, 2, LANES, CELLS), leaf_at + 2, on, inside)
        tl.store(out_at + 2, (third * sign) & 0xFFFFFFFF, mask=inside)
    if LANES > 3:
        fourth += _corrected(_leaf(low, high, place, 3, LANES, CELLS), leaf_at + 3, on, inside)
        tl.store(out_at + 3, (fourth * sign) & 0xFFFFFFFF, mask=inside)


def evaluate_payload(
    x: Tensor, seed: Tensor, key: Tensor, table: Tensor, keys: Tensor, shares: Tensor, party: int, width: int,
    levels: int,
) -> None:  # fmt: skip
    """Evaluates this party's shares of beta [x < alpha]; see `payload_dcf.evaluate`.

    Args:
        x: Public numbers, int64, [n, points], on the GPU; bits from `width` on are ignored.
        seed: This party's seeds, uint8, [n, 16].
        key: The keys, uint8; see `payload_levels.parts`.
        table: AES's table on the GPU; see `constants`.
        keys: The key schedule of the session's permutation.
        shares: Output, int64, [n, points, lanes].
        party: 0 or 1.
        width: Number of bits compared.
        levels: Levels above the leaves.
    """
    (n, points), lanes = x.shape, shares.shape[2]
    if x.numel():
        cells, rest, few = 1 << ((MOST_LANES // lanes).bit_length() - 1), width - levels, x.numel() <= FEW
        run, dtype, count = (evaluated_payload, torch.int32, 1) if few else (_evaluated_payload, torch.int64, _THREADS)
        sizes = [levels * n * 16, levels * n * 4 * lanes]
        words, values, leaves = torch.tensor_split(key, [sizes[0], sum(sizes)])
        keyed = (words.view(dtype), values.view(torch.int32), leaves.view(torch.int32))
        pointers = (x, seed.view(dtype), *keyed, shares, table, keys)
        run[(triton.cdiv(x.numel(), count),)](
            *pointers, n, points, party, width, rest, lanes, cells, ROUNDS, count, num_warps=-(-count // WARP)
        )


@lru_cache(maxsize=8)
def constants(permutation_key: bytes, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns the table and the round keys on a device; cached for recent sessions, whose keys are public."""
    return table_aes.columns(device), table_aes.schedule(permutation_key, device)
