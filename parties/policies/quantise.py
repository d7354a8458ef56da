"""Quantisation of secret numbers to a few secret levels, by comparisons instead of divisions.

Asymmetric round-to-nearest (KIVI, arXiv 2402.02750; MiKV, arXiv 2402.18096): for b bits the numbers of a group are
rounded to the nearest of low + i (high - low) / (2^b - 1). The level of x is the number of public fractions
(j - 1/2) / (2^b - 1) of the range that do not exceed x - low: 2^b - 1 comparisons per number, no reciprocal and no
rounding. The results are numbers of the ring's usual width. So a run shows the effect of quantisation on quality and
its own cost, but not that a narrower ring would make products cheaper.
"""

from typing import TYPE_CHECKING, Any

from parties.decoding.program import Program, parallel

if TYPE_CHECKING:
    from parties.engines.base import Engine

AT_ONCE = 1 << 20
"""Number of comparisons made at once, so that memory stays bounded."""


def quantised(engine: "Engine", x: Any, bits: int, group: int) -> Program[Any]:
    """Rounds numbers x [heads, rows, m] in groups of adjacent numbers of a row.

    Args:
        engine: The engine.
        x: The numbers.
        bits: Bits of a quantised number, 1 to 8.
        group: Size of a group; the last group of a row may be smaller.
    """
    heads, rows, m = x.shape
    size, step = min(group, m), max(1, AT_ONCE // (heads * m * 2**bits))
    whole = m // size * size
    blocks = []
    for start in range(0, rows, step):
        part = x[:, start : start + step]
        ends = [(part[:, :, :whole], size)] + ([(part[:, :, whole:], m - whole)] if whole < m else [])
        done = yield from parallel(*(_rounded(engine, numbers, each, 2**bits - 1) for numbers, each in ends))
        blocks.append(engine.cat(done, dim=2))
    return engine.cat(blocks, dim=1)


def _rounded(engine: "Engine", numbers: Any, size: int, steps: int) -> Program[Any]:
    """Rounds numbers [heads, rows, m] to the nearest of steps + 1 levels of each group of `size`."""
    heads, rows, m = numbers.shape
    if size == 1:
        return numbers  # a number alone is the lowest level of its group
    x = numbers.reshape(heads, rows * m // size, size)
    ends = yield from engine.largest(engine.cat([x, -x], dim=0), dim=2)
    low = -ends[heads:]
    span = ends[:heads] - low
    above = x - low
    edges = engine.cat([above - span * ((j + 0.5) / steps) for j in range(steps)], dim=0)
    below = yield from engine.negative(edges)
    count = below.reshape(steps, *x.shape).sum(0)
    taken = yield from engine.mul(count, span * (1 / steps))
    return engine.to_cache(low + span - taken).reshape(heads, rows, m)
