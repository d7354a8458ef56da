"""Tables as zeros, a straight line and a curve: most cells of an activation or an exponential are not on the curve.

Cells are on a circle. An activation's are zero, and then the number itself or its slope, on either side of a curve; a
capped exponential's are zero and the cap. A sum over some of a line's cells follows from how many they are and from the
sum of their places, and needs no table. Which cells are where is public.
"""

import numpy as np
from numpy.typing import NDArray

from parties.engines.fss.kernels.table_sums import FIELDS, PART

Integers = NDArray[np.int64]


def curves_of(values: Integers) -> tuple[Integers, Integers]:
    """Splits tables into what `table_sums` reads.

    Args:
        values: Int64, [tables, rows, length].

    Returns:
        Curves, [tables, rows, parts, PART], and lines, [tables, rows, FIELDS].
    """
    tables, rows = values.shape[:2]
    lines = np.zeros((tables, rows, FIELDS), dtype=np.int64)
    found = [[_split(values[t, row], lines[t, row]) for row in range(rows)] for t in range(tables)]
    parts = -(-max(len(curve) for table in found for curve in table) // PART)
    curves = np.zeros((tables, rows, parts * PART), dtype=np.int64)
    for t, row in np.ndindex(tables, rows):
        curves[t, row, : len(found[t][row])] = found[t][row]
    return curves.reshape(tables, rows, parts, PART), lines


def _split(cells: Integers, fields: Integers) -> Integers:
    """Fills in the fields of a table; returns its curve, the last cell first."""
    length = len(cells)
    zero, zeros = _longest_zeros(cells)
    first = (zero + zeros) % length if zeros else length // 2  # where the cells of signed numbers wrap around
    rest = np.roll(cells, -first)[: length - zeros]
    before, after = _straight(rest), _straight(rest[::-1])
    if max(before, after) < PART:
        fields[:2] = first, len(rest)
        return rest[::-1]
    at, span = (0, before) if before >= after else (len(rest) - after, after)
    line, curve = rest[at : at + span], rest[span:] if at == 0 else rest[:at]
    start = first + (span if at == 0 else 0)
    step = (line[:1] - line[1:2])[0]  # of arrays, which wrap around without a warning
    fields[:] = start % length, len(curve), (first + at) % length, span, line[-1], step
    return curve[::-1]


def _longest_zeros(cells: Integers) -> tuple[int, int]:
    """Returns first cell and length of the longest stretch of zeros on the circle."""
    length, others = len(cells), np.flatnonzero(cells)
    if not len(others):
        return 0, length
    gaps = np.diff(others, append=others[0] + length) - 1
    widest = int(np.argmax(gaps))
    return int((others[widest] + 1) % length), int(gaps[widest])


def _straight(cells: Integers) -> int:
    """Returns how many of the first cells lie on a straight line, modulo 2^64."""
    bends = np.flatnonzero(np.diff(cells, 2))
    return int(bends[0]) + 2 if len(bends) else len(cells)
