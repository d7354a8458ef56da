"""`prefix_dpf.evaluate` on a GPU: four lanes go down the tree of a key at one point; see `comparison`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from parties.engines.fss.kernels.comparison import ROUNDS
from parties.engines.fss.kernels.few_points import FEW, WARP, corrected, seeded, turned_on, tweaked, uncontrolled
from parties.engines.fss.kernels.prefix_trees import CELL_BITS, ENTRIES, REST_BITS, STEP
from parties.engines.fss.kernels.table_aes import hashed_columns, lanes_of


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
    POINTS: tl.constexpr,
):
    """Evaluates POINTS points, each in four lanes; names are those of `prefix_trees`."""
    lane, column = lanes_of(POINTS, 4)
    point = tl.program_id(0) * POINTS + tl.arange(0, POINTS)[:, None]
    inside = point < n * tables * 2
    own = (point // (tables * 2)).to(tl.int64)
    at = (point % (tables * 2)) // 2
    number = tl.load(x + own, mask=inside, other=0)
    depth = lowest + STEP * at.to(tl.int64)
    carry = (point & 1).to(tl.int64)
    shown = number - (carry << depth)
    state = seeded(seeds, own, column, inside)
    on = tl.zeros((POINTS, 4), dtype=tl.uint32) + party.to(tl.uint32)
    top = lowest + STEP * (tables - 1)
    word_at = words + 4 * own + column
    for step in range(top + 1 - lowest):
        level = top - step
        bit = ((shown >> level) & 1).to(tl.uint32)
        child = hashed_columns(tweaked(state, column, bit), lane, column, table, keys, ROUNDS)
        word, further = corrected(word_at, on, inside), level >= depth
        on = tl.where(further, turned_on(child ^ (word >> bit), column), on)
        state = tl.where(further, uncontrolled(child ^ word, column), state)
        word_at += 4 * n
    start = depth - CELL_BITS
    entry = ((number >> start) & ((1 << CELL_BITS) - 1)) + (carry << CELL_BITS)
    rest = (number >> (start - REST_BITS)) & ((1 << REST_BITS) - 1)
    path = entry.to(tl.uint32)
    leaf = hashed_columns(tweaked(state, column, 4), lane, column, table, keys, ROUNDS)
    leaf = hashed_columns(_below(leaf, column, path >> 5), lane, column, table, keys, ROUNDS)
    leaf = hashed_columns(_below(leaf, column, (path >> 2) & 7), lane, column, table, keys, ROUNDS)
    leaf = hashed_columns(_below(leaf, column, path & 3), lane, column, table, keys, ROUNDS)
    cell, taken = values + 2 * ((own * tables + at) * ENTRIES + entry), on.to(tl.int64)
    value = _half(leaf, column, 0) + taken * tl.load(cell, mask=inside, other=0)
    slope = _half(leaf, column, 1) + taken * tl.load(cell + 1, mask=inside, other=0)
    share = (value + slope * rest) * (1 - 2 * party)
    tl.store(out + point + column, share, mask=inside & (column == 0))


@triton.jit
def _below(block, column, tweak):  # type: ignore[no-untyped-def]
    """Returns what is hashed for a child of a block without correction."""
    return tweaked(uncontrolled(block, column), column, tweak)


@triton.jit  # type: ignore[untyped-decorator]
def _half(block, column, HALF: tl.constexpr):  # type: ignore[no-untyped-def]
    """Returns one of the two words of a block, int64."""
    low, high = tl.gather(block, column * 0 + 2 * HALF, 1), tl.gather(block, column * 0 + 2 * HALF + 1, 1)
    return low.to(tl.int64) | (high.to(tl.int64) << 32)


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
        pointers = (x, seed.view(torch.int32), words.view(torch.int32), values.view(torch.int64), shares, table, keys)
        count = 1 if shares.numel() <= FEW else WARP
        sizes = (STEP, CELL_BITS, REST_BITS, ENTRIES, ROUNDS, count)
        _evaluated[(triton.cdiv(shares.numel(), count),)](
            *pointers, n, tables, party, lowest, *sizes, num_warps=max(1, 4 * count // WARP)
        )
