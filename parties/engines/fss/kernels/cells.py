"""`cell_dpf.evaluate` on a GPU: one thread goes down the tree of a key to one leaf; see `comparison`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from parties.engines.fss.kernels.cell_trees import BLOCKS, CELLS, LANE_BITS, LANES, LEVELS
from parties.engines.fss.kernels.comparison import ROUNDS
from parties.engines.fss.kernels.table_aes import hashed

_THREADS = 128


@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=["places", "seeds", "words", "corrections", "counts", "total", "n", "party"]
)
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
    THREADS: tl.constexpr,
):
    """Evaluates THREADS leaves; names are those of `cell_trees`."""
    leaf = tl.program_id(0).to(tl.int64) * THREADS + tl.arange(0, THREADS)
    key, block = leaf >> LEVELS, leaf & ((1 << LEVELS) - 1)
    inside = key < total
    low = tl.load(seeds + 2 * key, mask=inside, other=0) & ~7
    high = tl.load(seeds + 2 * key + 1, mask=inside, other=0)
    on = tl.zeros((THREADS,), dtype=tl.int64) + party
    word_at = words + 2 * key
    for level in range(LEVELS):
        bit = (block >> (LEVELS - 1 - level)) & 1
        low, high = hashed(low ^ bit, high, table, keys, ROUNDS)
        word = tl.load(word_at, mask=inside, other=0) * on
        other = tl.load(word_at + 1, mask=inside, other=0) * on
        on = (low ^ (word >> bit)) & 1
        low, high = (low ^ word) & ~7, high ^ other
        word_at += 2 * total
    place = tl.load(places + key, mask=inside, other=0)
    row = counts + key // n * CELLS
    for lane in tl.static_range(LANES):
        half = low if lane < 2 else high
        element = (half >> (4 if lane % 2 else 64 - LANE_BITS)) & ((1 << LANE_BITS) - 1)
        added = tl.load(corrections + LANES * key + lane, mask=inside, other=0).to(tl.int64)
        cell = (place - (LANES * block + lane)) & (CELLS - 1)
        tl.atomic_add(row + cell, (element + on * added) * (1 - 2 * party), mask=inside, sem="relaxed")


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
        sizes = (LEVELS, LANES, LANE_BITS, CELLS, ROUNDS, _THREADS)
        _evaluated[(triton.cdiv(total * BLOCKS, _THREADS),)](
            *pointers, counts, table, keys, total, places.shape[1], party, *sizes, num_warps=_THREADS // 32
        )
