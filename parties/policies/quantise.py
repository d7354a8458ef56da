"""Rounding secret numbers to a few secret levels: min and max of a group, and comparisons instead of divisions.

Asymmetric round-to-nearest (KIVI, arXiv 2402.02750; MiKV, arXiv 2402.18096): for b bits a group's numbers go to the
nearest of low + i (high - low) / (2^b - 1). The level of x is the number of public fractions (j - 1/2) / (2^b - 1) of
the range that x - low is not below: 2^b - 1 comparisons a number, no reciprocal and no rounding. The result are numbers
of the ring's usual width, so that a run shows what quantisation does to quality and what making it costs; that a
narrower ring would make products cheaper is not shown.
"""

from typing import TYPE_CHECKING, Any

from parties.decoding.program import Program, parallel

if TYPE_CHECKING:
    from parties.engines.base import Engine

PIECE = 1 << 20
"""Comparisons made at once, so that memory stays bounded."""


def quantised(engine: "Engine", x: Any, bits: int, group: int) -> Program[Any]:
    """Numbers x [heads, rows, m] rounded in groups of adjacent ones of a row.

    Args:
        engine: the engine.
        x: the numbers.
        bits: of a level, 1 to 8.
        group: numbers of a group; what is left of a row is a smaller one.
    """
    heads, rows, m = x.shape
    size, step = min(group, m), max(1, PIECE // (heads * m * 2**bits))
    whole = m // size * size
    pieces = []
    for start in range(0, rows, step):
        part = x[:, start : start + step]
        ends = [(part[:, :, :whole], size)] + ([(part[:, :, whole:], m - whole)] if whole < m else [])
        done = yield from parallel(*(_rounded(engine, numbers, each, 2**bits - 1) for numbers, each in ends))
        pieces.append(engine.cat(done, dim=2))
    return engine.cat(pieces, dim=1)


def _rounded(engine: "Engine", numbers: Any, size: int, steps: int) -> Program[Any]:
    """Numbers [heads, rows, m] to the nearest of steps + 1 levels of each `size` adjacent ones."""
    heads, rows, m = numbers.shape
    if size == 1:
        return numbers  # alone, each number is the lowest level of its group
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
