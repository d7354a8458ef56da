"""`cell_dpf.evaluate` on a GPU: a few keys in a program, which goes down their whole trees; see `comparison`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from parties.engines.fss.kernels.cell_trees import CELLS, LANE_BITS, LANES, LEVELS
from parties.engines.fss.kernels.comparison import ROUNDS
from parties.engines.fss.kernels.table_aes import hashed

_KEYS = 4  # of a program; 32 nodes each on the last level


@triton.jit(do_not_specialize=["total", "n", "party"])  # type: ignore[untyped-decorator]
def _evaluated(  # type: ignore[no-untyped-def]
    places,
    seeds,
    words,
    corrections,
    counts,
    table,
    keys,
    total,
    n,
    party,
    LEVELS: tl.constexpr,
    LANES: tl.constexpr,
    LANE_BITS: tl.constexpr,
    CELLS: tl.constexpr,
    ROUNDS: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Evaluates KEYS keys; names are those of `cell_trees`."""
    key = tl.program_id(0).to(tl.int64) * KEYS + tl.arange(0, KEYS)
    inside = key < total
    low = tl.reshape(tl.load(seeds + 2 * key, mask=inside, other=0) & ~7, (KEYS, 1))
    high = tl.reshape(tl.load(seeds + 2 * key + 1, mask=inside, other=0), (KEYS, 1))
    on = tl.zeros((KEYS, 1), dtype=tl.int64) + party
    for level in tl.static_range(LEVELS):
        at = words + 2 * (level * total + key)
        word = tl.reshape(tl.load(at, mask=inside, other=0), (KEYS, 1)) * on
        other = tl.reshape(tl.load(at + 1, mask=inside, other=0), (KEYS, 1)) * on
        left, left_high = hashed(low, high, table, keys, ROUNDS)
        right, right_high = hashed(low ^ 1, high, table, keys, ROUNDS)
        on = tl.reshape(tl.join((left ^ word) & 1, (right ^ (word >> 1)) & 1), (KEYS, 2 << level))
        low = tl.reshape(tl.join((left ^ word) & ~7, (right ^ word) & ~7), (KEYS, 2 << level))
        high = tl.reshape(tl.join(left_high ^ other, right_high ^ other), (KEYS, 2 << level))
    place = tl.reshape(tl.load(places + key, mask=inside, other=0), (KEYS, 1))
    block = tl.reshape(tl.arange(0, CELLS // LANES), (1, CELLS // LANES))
    row = tl.reshape(key // n * CELLS, (KEYS, 1))
    counted = tl.reshape(inside, (KEYS, 1)) & (block >= 0)
    for lane in tl.static_range(LANES):
        half = low if lane < 2 else high
        element = (half >> (4 if lane % 2 else 64 - LANE_BITS)) & ((1 << LANE_BITS) - 1)
        added = tl.load(corrections + LANES * key + lane, mask=inside, other=0).to(tl.int64)
        value = (element + on * tl.reshape(added, (KEYS, 1))) * (1 - 2 * party)
        cell = (place - (LANES * block + lane)) & (CELLS - 1)
        tl.atomic_add(counts + row + cell, value, mask=counted, sem="relaxed")


def evaluate(
    places: Tensor, seed: Tensor, key: Tensor, table: Tensor, keys: Tensor, counts: Tensor, party: int
) -> None:
    """Evaluates this party's shares of the counts of each row, modulo 2^LANE_BITS; see `cell_dpf.evaluate`.

    Args:
        places: Public cells, int64, [rows, n], on the GPU.
        seed: This party's seeds, uint8, [rows n, 16].
        key: The keys, uint8; see `cell_trees.parts`.
        table: AES's table on the GPU; see `comparison.constants`.
        keys: The key schedule of the session's permutation.
        counts: Output, int64, [rows, CELLS].
        party: 0 or 1.
    """
    total = places.numel()
    counts.zero_()
    if total:
        words, corrections = torch.tensor_split(key, [LEVELS * total * 16])
        pointers = (places, seed.view(torch.int64), words.view(torch.int64), corrections.view(torch.int32))
        sizes = (LEVELS, LANES, LANE_BITS, CELLS, ROUNDS, _KEYS)
        _evaluated[(triton.cdiv(total, _KEYS),)](
            *pointers, counts, table, keys, total, places.shape[1], party, *sizes, num_warps=4
        )
