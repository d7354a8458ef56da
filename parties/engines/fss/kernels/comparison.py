"""`dcf.evaluate` and `payload_dcf.evaluate` on a GPU: one thread evaluates the tree of a key at one point.

The permutation is that of `dcf`, AES with the session's public key, so that a key evaluates alike on every device.
Table look-ups at secret indices leave traces in a cache, as in every table-based AES; the hashed blocks are seeds of
one-time keys.
"""

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from parties.engines.fss.kernels.aes import column_table, round_keys
from parties.engines.fss.kernels.bit_trees import LEAF_LEVELS
from parties.engines.fss.kernels.payload_trees import MOST_LANES

ROUNDS = 10
_LANES = 128


@triton.jit
def _mixed(table, a, b, c, d):  # type: ignore[no-untyped-def]
    """Returns a column after SubBytes, ShiftRows and MixColumns: byte 0 of a, 1 of b, 2 of c, 3 of d."""
    first = tl.load(table + (a & 255)).to(tl.uint32, bitcast=True)
    second = tl.load(table + ((b >> 8) & 255)).to(tl.uint32, bitcast=True)
    third = tl.load(table + ((c >> 16) & 255)).to(tl.uint32, bitcast=True)
    fourth = tl.load(table + (d >> 24)).to(tl.uint32, bitcast=True)
    turned = (second << 8) | (second >> 24)
    return first ^ turned ^ ((third << 16) | (third >> 16)) ^ ((fourth << 24) | (fourth >> 8))


@triton.jit
def _substituted(table, a, b, c, d):  # type: ignore[no-untyped-def]
    """Returns a column after SubBytes and ShiftRows; the S-box is in the second byte of the table."""
    first = (tl.load(table + (a & 255)) >> 8) & 255
    second = (tl.load(table + ((b >> 8) & 255)) >> 8) & 255
    third = (tl.load(table + ((c >> 16) & 255)) >> 8) & 255
    fourth = (tl.load(table + (d >> 24)) >> 8) & 255
    return (first | (second << 8) | (third << 16) | (fourth << 24)).to(tl.uint32, bitcast=True)


@triton.jit  # type: ignore[untyped-decorator]
def _hashed(low, high, table, keys, ROUNDS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Computes AES(block) ^ block for blocks of two words, int64; columns of the state are little-endian words."""
    a = (low & 0xFFFFFFFF).to(tl.uint32) ^ tl.load(keys).to(tl.uint32, bitcast=True)
    b = ((low >> 32) & 0xFFFFFFFF).to(tl.uint32) ^ tl.load(keys + 1).to(tl.uint32, bitcast=True)
    c = (high & 0xFFFFFFFF).to(tl.uint32) ^ tl.load(keys + 2).to(tl.uint32, bitcast=True)
    d = ((high >> 32) & 0xFFFFFFFF).to(tl.uint32) ^ tl.load(keys + 3).to(tl.uint32, bitcast=True)
    for i in range(1, ROUNDS):
        e = _mixed(table, a, b, c, d) ^ tl.load(keys + 4 * i).to(tl.uint32, bitcast=True)
        f = _mixed(table, b, c, d, a) ^ tl.load(keys + 4 * i + 1).to(tl.uint32, bitcast=True)
        g = _mixed(table, c, d, a, b) ^ tl.load(keys + 4 * i + 2).to(tl.uint32, bitcast=True)
        d = _mixed(table, d, a, b, c) ^ tl.load(keys + 4 * i + 3).to(tl.uint32, bitcast=True)
        a, b, c = e, f, g
    e = _substituted(table, a, b, c, d) ^ tl.load(keys + 4 * ROUNDS).to(tl.uint32, bitcast=True)
    f = _substituted(table, b, c, d, a) ^ tl.load(keys + 4 * ROUNDS + 1).to(tl.uint32, bitcast=True)
    g = _substituted(table, c, d, a, b) ^ tl.load(keys + 4 * ROUNDS + 2).to(tl.uint32, bitcast=True)
    h = _substituted(table, d, a, b, c) ^ tl.load(keys + 4 * ROUNDS + 3).to(tl.uint32, bitcast=True)
    return low ^ (e.to(tl.int64) | (f.to(tl.int64) << 32)), high ^ (g.to(tl.int64) | (h.to(tl.int64) << 32))


@triton.jit  # type: ignore[untyped-decorator]
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
        low, high = _hashed(low ^ bit, high, table, keys, ROUNDS)
        word = tl.load(at, mask=inside, other=0) * on
        other = tl.load(at + 1, mask=inside, other=0) * on
        value ^= (low >> 1) ^ (word >> 2)
        on = (low ^ (word >> bit)) & 1
        low, high = (low ^ word) & ~7, high ^ other
        at += 2 * n
    low, high = _hashed(low ^ 2, high, table, keys, ROUNDS)
    low ^= tl.load(at, mask=inside, other=0) * on
    high ^= tl.load(at + 1, mask=inside, other=0) * on
    place = number & inner
    half = tl.where(place >= 64, high, low)
    tl.store(out + point, ((value ^ (half >> (place & 63))) & 1).to(tl.uint8), mask=inside)


def evaluate(party: int, x: Tensor, width: int, seed: Tensor, key: Tensor, permutation_key: bytes) -> Tensor:
    """Evaluates this party's XOR shares of [x < alpha]: uint8, [n, points], 0 or 1; see `dcf.evaluate`.

    Args:
        party: 0 or 1.
        x: Public numbers, int64, [n, points], on the GPU; bits from `width` on are ignored.
        width: Number of bits compared.
        seed: This party's seeds, int64, [n, 2].
        key: Correction words, int64, [key_blocks, n, 2].
        permutation_key: The session's key, 16 bytes.
    """
    n, points = x.shape
    out = torch.empty(n, points, dtype=torch.uint8, device=x.device)
    table, keys = _constants(permutation_key, str(x.device))
    if x.numel():
        inner = (1 << min(width, LEAF_LEVELS)) - 1
        _evaluated[(triton.cdiv(x.numel(), _LANES),)](
            x, seed, key, out, table, keys, n, points, party, width, inner, LEAF_LEVELS, ROUNDS, _LANES
        )
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _lane(low, high, LANE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Returns one of the four elements of a block."""
    half = low if LANE < 2 else high
    return (half >> (32 * (LANE % 2))) & 0xFFFFFFFF


@triton.jit  # type: ignore[untyped-decorator]
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
    LANE: tl.constexpr,
    LANES: tl.constexpr,
    LEAF: tl.constexpr,
    ROUNDS: tl.constexpr,
    POINTS: tl.constexpr,
):
    """Evaluates one lane of POINTS points; names are those of `payload_dcf.evaluate`."""
    point = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    inside = point < n * points
    number = tl.load(x + point, mask=inside, other=0)
    key = point // points
    low = tl.load(seeds + 2 * key, mask=inside, other=0) & ~7
    high = tl.load(seeds + 2 * key + 1, mask=inside, other=0)
    on = tl.zeros((POINTS,), dtype=tl.int64) + party
    total = tl.zeros((POINTS,), dtype=tl.int64)
    at = words + 2 * key.to(tl.int64)
    value_at = values + LANES * key.to(tl.int64) + LANE
    for level in range(width - rest):
        bit = (number >> (width - 1 - level)) & 1
        first, second = _hashed(low ^ bit ^ 4, high, table, keys, ROUNDS)
        low, high = _hashed(low ^ bit, high, table, keys, ROUNDS)
        total += _lane(first, second, LANE) + on * tl.load(value_at, mask=inside, other=0).to(tl.int64)
        word = tl.load(at, mask=inside, other=0) * on
        other = tl.load(at + 1, mask=inside, other=0) * on
        on = (low ^ (word >> bit)) & 1
        low, high = (low ^ word) & ~7, high ^ other
        at += 2 * n
        value_at += LANES * n
    low, high = _hashed(low ^ 2, high, table, keys, ROUNDS)
    place = number & ((1 << rest) - 1)
    leaf = _lane(low, high, LANE)
    for cell in tl.static_range(1, 1 << LEAF):
        leaf = tl.where(place == cell, _lane(low, high, cell * LANES + LANE), leaf)
    leaf_at = leaves + (key.to(tl.int64) * (1 << LEAF) + place) * LANES + LANE
    total += leaf + on * tl.load(leaf_at, mask=inside, other=0).to(tl.int64)
    total = tl.where(party == 1, -total, total) & 0xFFFFFFFF
    tl.store(out + LANES * point.to(tl.int64) + LANE, total, mask=inside)


def evaluate_payload(
    party: int, x: Tensor, width: int, levels: int, lanes: int, seed: Tensor, key: Tensor, permutation_key: bytes
) -> Tensor:
    """Evaluates this party's shares of beta [x < alpha]: int64, [n, points, lanes]; see `payload_dcf.evaluate`.

    Args:
        party: 0 or 1.
        x: Public numbers, int64, [n, points], on the GPU; bits from `width` on are ignored.
        width: Number of bits compared.
        levels: Levels above the leaves.
        lanes: Number of elements of a payload.
        seed: This party's seeds, int64, [n, 2].
        key: The keys, uint8; see `payload_trees.parts`.
        permutation_key: The session's key, 16 bytes.
    """
    n, points = x.shape
    sizes = [levels * n * 16, levels * n * 4 * lanes]
    words, values, leaves = torch.tensor_split(key, [sizes[0], sum(sizes)])
    words, values, leaves = words.view(torch.int64), values.view(torch.int32), leaves.view(torch.int32)
    out = torch.empty(n, points, lanes, dtype=torch.int64, device=x.device)
    table, keys = _constants(permutation_key, str(x.device))
    leaf_levels = (MOST_LANES // lanes).bit_length() - 1
    if x.numel():
        for lane in range(lanes):
            _evaluated_payload[(triton.cdiv(x.numel(), _LANES),)](
                x,
                seed,
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
                width - levels,
                lane,
                lanes,
                leaf_levels,
                ROUNDS,
                _LANES,
            )
    return out


@lru_cache(maxsize=8)
def _constants(permutation_key: bytes, device: str) -> tuple[Tensor, Tensor]:
    """Returns the column table, [256], and the round keys, [44], int32, on a device; cached for recent sessions."""
    return torch.from_numpy(column_table()).to(device), torch.from_numpy(round_keys(permutation_key)).to(device)
