"""`dcf.evaluate` and `payload_dcf.evaluate` on a GPU: four lanes evaluate the tree of a key at one point.

With payloads eight lanes do. The permutation is that of `dcf`, AES with the session's public key, so that a key
evaluates alike on every device. Table look-ups at secret indices (`table_aes`) are at seeds of one-time keys.
"""

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from parties.engines.fss.kernels import table_aes
from parties.engines.fss.kernels.bit_trees import LEAF_LEVELS
from parties.engines.fss.kernels.payload_levels import MOST_LANES
from parties.engines.fss.kernels.table_aes import hashed_columns, lanes_of

ROUNDS = 10
_WARP = 32
FEW = 2048


@triton.jit
def seeded(seeds, key, column, inside):  # type: ignore[no-untyped-def]
    """Returns the roots of trees, without their control bits."""
    root = tl.load(seeds + 4 * key + column, mask=inside, other=0).to(tl.uint32, bitcast=True)
    return uncontrolled(root, column)


@triton.jit
def uncontrolled(block, column):  # type: ignore[no-untyped-def]
    """Clears the control bits of blocks."""
    return tl.where(column == 0, block & 0xFFFFFFF8, block)


@triton.jit
def tweaked(block, column, tweak):  # type: ignore[no-untyped-def]
    """Adds a tweak to blocks without control bits."""
    return tl.where(column == 0, block ^ tweak, block)


@triton.jit
def corrected(at, on, inside):  # type: ignore[no-untyped-def]
    """Returns the correction at an address where the control bit is one, else 0."""
    return tl.load(at, mask=inside, other=0).to(tl.uint32, bitcast=True) * on


@triton.jit
def turned_on(block, column):  # type: ignore[no-untyped-def]
    """Returns the lowest bit of blocks, in all of their lanes."""
    return tl.gather(block, column * 0, 1) & 1


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
    POINTS: tl.constexpr,
):
    """Evaluates POINTS points, each in four lanes; names are those of `dcf.evaluate`."""
    lane, column = lanes_of(POINTS, 4)
    point = tl.program_id(0) * POINTS + tl.arange(0, POINTS)[:, None]
    inside = point < n * points
    number = tl.load(x + point, mask=inside, other=0)
    key = (point // points).to(tl.int64)
    state = seeded(seeds, key, column, inside)
    on = tl.zeros((POINTS, 4), dtype=tl.uint32) + party.to(tl.uint32)
    value = tl.zeros((POINTS, 4), dtype=tl.uint32)  # in the lane of the first column
    at = words + 4 * key + column
    for level in range(width - LEAF):
        bit = ((number >> (width - 1 - level)) & 1).to(tl.uint32)
        child = hashed_columns(tweaked(state, column, bit), lane, column, table, keys, ROUNDS)
        word = corrected(at, on, inside)
        value ^= (child >> 1) ^ (word >> 2)
        on = turned_on(child ^ (word >> bit), column)
        state = uncontrolled(child ^ word, column)
        at += 4 * n
    leaf = hashed_columns(tweaked(state, column, 2), lane, column, table, keys, ROUNDS) ^ corrected(at, on, inside)
    place = (number & inner).to(tl.int32)
    found = tl.gather(leaf, column * 0 + (place >> 5), 1) >> (place & 31).to(tl.uint32)
    tl.store(out + point + column, ((value ^ found) & 1).to(tl.uint8), mask=inside & (column == 0))


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
        inner, count = (1 << min(width, LEAF_LEVELS)) - 1, points_per_program(x.numel(), 4)
        words = (seed.view(torch.int32), key.view(torch.int32))
        _evaluated[(triton.cdiv(x.numel(), count),)](
            x, *words, shares, table, keys, n, points, party, width, inner, LEAF_LEVELS, ROUNDS, count,
            num_warps=warps(count, 4),
        )  # fmt: skip


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
    """Evaluates POINTS points; names are those of `payload_dcf.evaluate`.

    Four lanes of a point hash its child, and four its payload.
    """
    lane, column = lanes_of(POINTS, 8)
    payload = lane // 4
    point = tl.program_id(0) * POINTS + tl.arange(0, POINTS)[:, None]
    inside = point < n * points
    number = tl.load(x + point, mask=inside, other=0)
    key = (point // points).to(tl.int64)
    state = seeded(seeds, key, column, inside)
    on = tl.zeros((POINTS, 8), dtype=tl.uint32) + party.to(tl.uint32)
    total = tl.zeros((POINTS, 8), dtype=tl.uint32)  # in the lanes of the payload
    at, value_at = words + 4 * key + column, values + LANES * key + column
    counts = inside & (payload == 1) & (column < LANES)
    for level in range(width - rest):
        bit = ((number >> (width - 1 - level)) & 1).to(tl.uint32)
        tweak = bit + 4 * payload.to(tl.uint32)
        both = hashed_columns(tweaked(state, column, tweak), lane, column, table, keys, ROUNDS)
        total += both + corrected(value_at, on, counts)
        child, word = tl.gather(both, column, 1), corrected(at, on, inside)
        on = turned_on(child ^ (word >> bit), column)
        state = uncontrolled(child ^ word, column)
        at += 4 * n
        value_at += LANES * n
    leaf = hashed_columns(tweaked(state, column, 2), lane, column, table, keys, ROUNDS)
    place = (number & ((1 << rest) - 1)).to(tl.int32)
    leaf_at = leaves + (key * CELLS + place) * LANES + column
    total += tl.gather(leaf, (place * LANES + column) & 3, 1) + corrected(leaf_at, on, counts)
    share = (total.to(tl.int64) * (1 - 2 * party)) & 0xFFFFFFFF
    tl.store(out + LANES * point.to(tl.int64) + column, share, mask=counts)


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
        cells, rest, count = (
            1 << ((MOST_LANES // lanes).bit_length() - 1),
            width - levels,
            points_per_program(x.numel(), 8),
        )
        sizes = [levels * n * 16, levels * n * 4 * lanes]
        words, values, leaves = torch.tensor_split(key, [sizes[0], sum(sizes)])
        keyed = (words.view(torch.int32), values.view(torch.int32), leaves.view(torch.int32))
        pointers = (x, seed.view(torch.int32), *keyed, shares, table, keys)
        _evaluated_payload[(triton.cdiv(x.numel(), count),)](
            *pointers, n, points, party, width, rest, lanes, cells, ROUNDS, count, num_warps=warps(count, 8)
        )


def points_per_program(points: int, lanes: int) -> int:
    """Returns the points of a program: a lone one finds its words in AES's table without waiting for others."""
    return 1 if points <= FEW else 4 * _WARP // lanes


def warps(points: int, lanes: int) -> int:
    """Returns the warps of a program of so many points of so many lanes."""
    return max(1, points * lanes // _WARP)


@lru_cache(maxsize=8)
def constants(permutation_key: bytes, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns the table and the round keys on a device; cached for recent sessions, whose keys are public."""
    return table_aes.columns(device), table_aes.schedule(permutation_key, device)
