"""`comparison` for few points: four lanes evaluate the tree of a key at one point, or eight if it has payloads.

A lone block of AES then takes a third of the time (`table_aes.hashed_columns`). Many points would take twice as long.
"""

import triton
import triton.language as tl

from parties.engines.fss.kernels.table_aes import hashed_columns, lanes_of

WARP = 32
FEW = 4096
"""Most points for which this is faster."""


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
def evaluated(  # type: ignore[no-untyped-def]
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


@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=["x", "seeds", "words", "values", "leaves", "out", "n", "points", "party", "width", "rest"]
)
def evaluated_payload(  # type: ignore[no-untyped-def]
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
