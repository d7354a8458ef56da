"""`dcf.generate` and `payload_dcf.generate` on a GPU: one thread follows the path of a key to its threshold.

Names are those of `bit_trees` and `payload_trees`. Table look-ups at secret indices (`table_aes`) are at seeds of
one-time keys.
"""

import triton
import triton.language as tl
from torch import Tensor

from parties.engines.fss.kernels.bit_trees import LEAF_LEVELS
from parties.engines.fss.kernels.comparison import ROUNDS, lanes_for, parts
from parties.engines.fss.kernels.table_aes import hashed


@triton.jit
def _chosen(right, left, other):  # type: ignore[no-untyped-def]
    """Returns the second of two words where `right` is all ones, and the first where it is zero."""
    return left ^ ((left ^ other) & right)


@triton.jit
def _seeds(client, server, key, inside):  # type: ignore[no-untyped-def]
    """Loads the seeds of both parties, without control bits."""
    low = tl.load(client + 2 * key, mask=inside, other=0) & ~7
    high = tl.load(client + 2 * key + 1, mask=inside, other=0)
    others_low = tl.load(server + 2 * key, mask=inside, other=0) & ~7
    others_high = tl.load(server + 2 * key + 1, mask=inside, other=0)
    return low, high, others_low, others_high


@triton.jit  # type: ignore[untyped-decorator]
def _level(bit, low, high, others_low, others_high, on, others_on, table, keys, ROUNDS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Goes a level down; returns the correction word, without payload, and what a payload of one bit needs."""
    right = -bit
    left_low, left_high = hashed(low, high, table, keys, ROUNDS)
    right_low, right_high = hashed(low ^ 1, high, table, keys, ROUNDS)
    others_left_low, others_left_high = hashed(others_low, others_high, table, keys, ROUNDS)
    others_right_low, others_right_high = hashed(others_low ^ 1, others_high, table, keys, ROUNDS)
    kept_low, kept_high = _chosen(right, left_low, right_low), _chosen(right, left_high, right_high)
    others_kept_low = _chosen(right, others_left_low, others_right_low)
    others_kept_high = _chosen(right, others_left_high, others_right_high)
    lost = _chosen(right, right_low ^ others_right_low, left_low ^ others_left_low)
    lost_high = _chosen(right, right_high ^ others_right_high, left_high ^ others_left_high)
    left_turn = (left_low ^ others_left_low ^ bit ^ 1) & 1
    right_turn = (right_low ^ others_right_low ^ bit) & 1
    turn = _chosen(right, left_turn, right_turn)
    word = (lost & ~7) | left_turn | (right_turn << 1)
    lost_bit, kept_bit = (lost >> 1) & 1, ((kept_low ^ others_kept_low) >> 1) & 1
    low, high = (kept_low & ~7) ^ ((lost & ~7) & -on), kept_high ^ (lost_high & -on)
    others_low = (others_kept_low & ~7) ^ ((lost & ~7) & -others_on)
    others_high = others_kept_high ^ (lost_high & -others_on)
    on, others_on = (kept_low & 1) ^ (on & turn), (others_kept_low & 1) ^ (others_on & turn)
    return word, lost_high, lost_bit, kept_bit, low, high, others_low, others_high, on, others_on


@triton.jit  # type: ignore[untyped-decorator]
def _generated(  # type: ignore[no-untyped-def]
    alphas, client, server, words, table, keys, n, width, inner,
    LEAF: tl.constexpr, ROUNDS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Generates KEYS keys for a bit."""
    key = tl.program_id(0) * KEYS + tl.arange(0, KEYS)
    inside = key < n
    alpha = tl.load(alphas + key, mask=inside, other=0)
    low, high, others_low, others_high = _seeds(client, server, key, inside)
    on = tl.zeros((KEYS,), dtype=tl.int64)
    others_on, value = on + 1, on
    at = words + 2 * key.to(tl.int64)
    for level in range(width - LEAF):
        bit = (alpha >> (width - 1 - level)) & 1
        word, other, lost_bit, kept_bit, low, high, others_low, others_high, on, others_on = _level(
            bit, low, high, others_low, others_high, on, others_on, table, keys, ROUNDS
        )
        gain = value ^ lost_bit ^ bit
        value ^= kept_bit ^ gain
        tl.store(at, word | (gain << 2), mask=inside)
        tl.store(at + 1, other, mask=inside)
        at += 2 * n
    low, high = hashed(low ^ 2, high, table, keys, ROUNDS)
    others_low, others_high = hashed(others_low ^ 2, others_high, table, keys, ROUNDS)
    rest = alpha & inner
    upper, below = -(rest >> 6), (tl.full((KEYS,), 1, tl.int64) << (rest & 63)) - 1
    tl.store(at, (upper | below) ^ -value ^ low ^ others_low, mask=inside)
    tl.store(at + 1, (upper & below) ^ -value ^ high ^ others_high, mask=inside)


def generate(
    alpha: Tensor, client: Tensor, server: Tensor, table: Tensor, schedule: Tensor, key: Tensor, width: int
) -> None:
    """Generates all keys for a bit; see `dcf.generate`.

    Args:
        alpha: Thresholds, int64, [n], on the GPU.
        client: The client's seeds, uint8, [n, 16].
        server: The server's seeds.
        table: AES's table on the GPU; see `comparison.constants`.
        schedule: The key schedule of the session's permutation.
        key: Output, uint8, [key_blocks, n, 16].
        width: Number of bits compared.
    """
    if (n := len(alpha)) > 0:
        inner, count = (1 << min(width, LEAF_LEVELS)) - 1, lanes_for(n)
        client, server, words = (part.view(-1).view(alpha.dtype) for part in (client, server, key))
        _generated[(triton.cdiv(n, count),)](
            alpha, client, server, words, table, schedule, n, width, inner, LEAF_LEVELS, ROUNDS, count,
            num_warps=max(1, count // 32),
        )  # fmt: skip


@triton.jit  # type: ignore[untyped-decorator]
def _generated_payload(  # type: ignore[no-untyped-def]
    alphas, betas, client, server, words, values, leaves, table, keys, n, width, rest,
    LANES: tl.constexpr, CELLS: tl.constexpr, ROUNDS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Generates one key for each lane of payloads: KEYS of them; `total` is that of the program's lane."""
    key = tl.program_id(0) * KEYS + tl.arange(0, KEYS)
    lane = tl.program_id(1)
    inside = key < n
    alpha = tl.load(alphas + key, mask=inside, other=0)
    beta = tl.load(betas + LANES * key.to(tl.int64) + lane, mask=inside, other=0)
    low, high, others_low, others_high = _seeds(client, server, key, inside)
    on = tl.zeros((KEYS,), dtype=tl.int64)
    others_on, total = on + 1, on
    at, value_at = words + 2 * key.to(tl.int64), values + LANES * key.to(tl.int64) + lane
    shift, upper = (32 * (lane % 2)).to(tl.int64), lane >= 2
    for level in range(width - rest):
        bit = (alpha >> (width - 1 - level)) & 1
        sign = 1 - 2 * others_on
        left_low, left_high = hashed(low ^ 4, high, table, keys, ROUNDS)
        right_low, right_high = hashed(low ^ 5, high, table, keys, ROUNDS)
        others_left_low, others_left_high = hashed(others_low ^ 4, others_high, table, keys, ROUNDS)
        others_right_low, others_right_high = hashed(others_low ^ 5, others_high, table, keys, ROUNDS)
        left = (tl.where(upper, others_left_high, others_left_low) >> shift) & 0xFFFFFFFF
        left -= (tl.where(upper, left_high, left_low) >> shift) & 0xFFFFFFFF
        right = (tl.where(upper, others_right_high, others_right_low) >> shift) & 0xFFFFFFFF
        right -= (tl.where(upper, right_high, right_low) >> shift) & 0xFFFFFFFF
        lost, kept = right + bit * (left - right), left - bit * (left - right)
        correction = sign * (lost - total + bit * beta)
        total += sign * correction - kept
        tl.store(value_at, correction.to(tl.int32), mask=inside)
        word, other, _, _, low, high, others_low, others_high, on, others_on = _level(
            bit, low, high, others_low, others_high, on, others_on, table, keys, ROUNDS
        )
        first = inside & (lane == 0)
        tl.store(at, word, mask=first)
        tl.store(at + 1, other, mask=first)
        at += 2 * n
        value_at += LANES * n
    low, high = hashed(low ^ 2, high, table, keys, ROUNDS)
    others_low, others_high = hashed(others_low ^ 2, others_high, table, keys, ROUNDS)
    sign = 1 - 2 * others_on
    place = alpha & ((1 << rest) - 1)
    leaf_at = leaves + key.to(tl.int64) * (CELLS * LANES) + lane
    for cell in range(CELLS):
        element = cell * LANES + lane
        moved, high_half = (32 * (element % 2)).to(tl.int64), element >= 2
        mine = (tl.where(high_half, high, low) >> moved) & 0xFFFFFFFF
        theirs = (tl.where(high_half, others_high, others_low) >> moved) & 0xFFFFFFFF
        correction = tl.where(cell < place, beta, 0) - total + theirs - mine
        tl.store(leaf_at + cell * LANES, (sign * correction).to(tl.int32), mask=inside)


def generate_payload(
    alpha: Tensor,
    beta: Tensor,
    client: Tensor,
    server: Tensor,
    table: Tensor,
    schedule: Tensor,
    key: Tensor,
    width: int,
    levels: int,
) -> None:
    """Generates all keys with payloads; see `payload_dcf.generate`.

    Args:
        alpha: Thresholds, int64, [n], on the GPU.
        beta: Payloads, int64, [n, lanes].
        client: The client's seeds, uint8, [n, 16].
        server: The server's seeds.
        table: AES's table on the GPU; see `comparison.constants`.
        schedule: The key schedule of the session's permutation.
        key: Output, uint8, the keys; see `payload_trees.parts`.
        width: Number of bits compared.
        levels: Levels above the leaves.
    """
    n, lanes = beta.shape
    if n:
        rest, count = width - levels, lanes_for(n * lanes)
        client, server = (part.view(-1).view(alpha.dtype) for part in (client, server))
        pointers = (alpha, beta, client, server, *parts(key, n, levels, lanes), table, schedule)
        _generated_payload[(triton.cdiv(n, count), lanes)](
            *pointers, n, width, rest, lanes, cells_of(lanes), ROUNDS, count, num_warps=max(1, count // 32)
        )


def cells_of(lanes: int) -> int:
    """Returns the number of cells in a leaf."""
    return {1: 4, 2: 2, 3: 1, 4: 1}[lanes]
