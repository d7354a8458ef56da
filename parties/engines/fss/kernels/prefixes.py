"""`prefix_dpf.evaluate` on a GPU: one thread goes down the tree of a key at one point; see `comparison`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from parties.engines.fss.kernels.comparison import ROUNDS, points_per_program
from parties.engines.fss.kernels.prefix_trees import CELL_BITS, ENTRIES, REST_BITS, STEP
from parties.engines.fss.kernels.table_aes import hashed


@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=["x", "seeds", "words", "values", "out", "n", "tables", "party", "lowest"]
)
def _evaluated(  # type: ignore[no-untyped-def]
    x,
    seeds,
    words,
    values,
    out,
    table,
    keys,
    n,
    tables,
    party,
    lowest,
    STEP: tl.constexpr,
    CELL_BITS: tl.constexpr,
    REST_BITS: tl.constexpr,
    ENTRIES: tl.constexpr,
    ROUNDS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Evaluates LANES points; names are those of `prefix_trees`."""
    point = tl.program_id(0) * LANES + tl.arange(0, LANES)
    inside = point < n * tables * 2
    own = point // (tables * 2)
    at = (point % (tables * 2)) // 2
    number = tl.load(x + own, mask=inside, other=0)
    depth = lowest + STEP * at.to(tl.int64)
    carry = (point & 1).to(tl.int64)
    shown = number - (carry << depth)
    low = tl.load(seeds + 2 * own, mask=inside, other=0) & ~7
    high = tl.load(seeds + 2 * own + 1, mask=inside, other=0)
    on = tl.zeros((LANES,), dtype=tl.int64) + party
    top = lowest + STEP * (tables - 1)
    word_at = words + 2 * own.to(tl.int64)
    for step in range(top + 1 - lowest):
        level = top - step
        bit = (shown >> level) & 1
        next_low, next_high = hashed(low ^ bit, high, table, keys, ROUNDS)
        word = tl.load(word_at, mask=inside, other=0) * on
        other = tl.load(word_at + 1, mask=inside, other=0) * on
        further = level >= depth
        on = tl.where(further, (next_low ^ (word >> bit)) & 1, on)
        low = tl.where(further, (next_low ^ word) & ~7, low)
        high = tl.where(further, next_high ^ other, high)
        word_at += 2 * n
    start = depth - CELL_BITS
    entry = ((number >> start) & ((1 << CELL_BITS) - 1)) + (carry << CELL_BITS)
    rest = (number >> (start - REST_BITS)) & ((1 << REST_BITS) - 1)
    low, high = hashed(low ^ 4, high, table, keys, ROUNDS)
    low, high = hashed((low & ~7) ^ (entry >> 5), high, table, keys, ROUNDS)
    low, high = hashed((low & ~7) ^ ((entry >> 2) & 7), high, table, keys, ROUNDS)
    low, high = hashed((low & ~7) ^ (entry & 3), high, table, keys, ROUNDS)
    cell = values + 2 * ((own * tables + at).to(tl.int64) * ENTRIES + entry)
    value = low + on * tl.load(cell, mask=inside, other=0)
    slope = high + on * tl.load(cell + 1, mask=inside, other=0)
    tl.store(out + point, (value + slope * rest) * (1 - 2 * party), mask=inside)


def evaluate(
    x: Tensor, seed: Tensor, key: Tensor, table: Tensor, keys: Tensor, shares: Tensor, party: int, lowest: int
) -> None:
    """Evaluates this party's shares of the function, one for each table and half; see `prefix_dpf.evaluate`.

    Args:
        x: Public numbers, int64, [n], on the GPU.
        seed: This party's seeds, uint8, [n, 16].
        key: The keys, uint8; see `prefix_trees.parts`.
        table: AES's table on the GPU; see `comparison.constants`.
        keys: The key schedule of the session's permutation.
        shares: Output, int64, [n, 2 tables]; a row sums to the share.
        party: 0 or 1.
        lowest: Level of the first table.
    """
    (n,), tables = x.shape, shares.shape[1] // 2
    words, values = torch.tensor_split(key, [(STEP * (tables - 1) + 1) * n * 16])
    if n:
        pointers = (x, seed.view(torch.int64), words.view(torch.int64), values.view(torch.int64), shares, table, keys)
        count = points_per_program(shares.numel())
        sizes = (STEP, CELL_BITS, REST_BITS, ENTRIES, ROUNDS, count)
        _evaluated[(triton.cdiv(shares.numel(), count),)](
            *pointers, n, tables, party, lowest, *sizes, num_warps=max(1, count // 32)
        )
