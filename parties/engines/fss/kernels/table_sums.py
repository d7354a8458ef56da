"""Sums over the selected cells of a rotated table, of which most cells lie on a straight line; see `functions.curves`.

A place that is selected in a packed row of bits is a place of the table that the public rotation has turned there. So
the bits of any stretch of places are shifted out of the row, 64 at a time, where they are wanted: those of the curve as
masks of its values, those of the line to be counted.
"""

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from parties.engines.fss.kernels.compiled import compiled
from parties.engines.fss.kernels.loops import Integers, Octets

PART = 64  # cells whose bits are a word
FIELDS = 6


@intrinsic  # type: ignore[untyped-decorator]
def _ones(typing_context: Any, word: Any) -> Any:  # noqa: ARG001
    """Counts the ones of a word, uint64."""
    return types.uint64(word), lambda _, builder, __, arguments: builder.ctpop(arguments[0])


@intrinsic  # type: ignore[untyped-decorator]
def _reversed(typing_context: Any, word: Any) -> Any:  # noqa: ARG001
    """Reverses the bytes of a word, uint64, so that the first bit of a packed row is the highest."""
    return types.uint64(word), lambda _, builder, __, arguments: builder.bswap(arguments[0])


@compiled("uint64(uint64)")
def _places(word: Any) -> Any:
    """Sums the places of the ones, of which the highest bit's is 0."""
    return (
        _ones(word & np.uint64(0x5555555555555555))
        + np.uint64(2) * _ones(word & np.uint64(0x3333333333333333))
        + np.uint64(4) * _ones(word & np.uint64(0x0F0F0F0F0F0F0F0F))
        + np.uint64(8) * _ones(word & np.uint64(0x00FF00FF00FF00FF))
        + np.uint64(16) * _ones(word & np.uint64(0x0000FFFF0000FFFF))
        + np.uint64(32) * _ones(word & np.uint64(0x00000000FFFFFFFF))
    )


@compiled("void(int64[:, :, :, ::1], int64[:, :, ::1], uint8[:, ::1], int64[::1], int64[:, ::1])")
def table_sums(curves: NDArray[np.int64], lines: Integers, bits: Octets, turn: Integers, sums: Integers) -> None:
    """Sums bit j of element i times T[turn[i] - j] over j, for each table T.

    Args:
        curves: Cells of the curves, the last one first, [tables, rows, parts, PART]; element i uses row i mod rows.
        lines: Where curves and lines are, [tables, rows, FIELDS]: first cell and number of cells of the curve; the same
            of the line, its value at its last cell, and by how much it is more at each cell before.
        bits: Packed bits, [n, length / 8], length at least PART.
        turn: Rotations, [n], 0 to length - 1.
        sums: Output, [tables, n].
    """
    n, octets = bits.shape
    count, around = np.uint64(octets // 8), np.uint64(8 * octets - 1)
    words, one, most = bits.reshape(-1).view(np.uint64), np.uint64(1), np.uint64(PART - 1)
    for t in range(curves.shape[0]):
        for row in range(curves.shape[1]):
            curve = curves[t, row]
            first, size, line, span, value, step = lines[t, row]
            for element in range(row, n, curves.shape[1]):
                i, total = np.uint64(element), np.int64(0)  # unsigned: Numba does not test for an index below 0
                own, turned = i * count, turn[i]
                start = np.uint64(turned - first - size + 1) & around
                shift, at = start & most, start >> np.uint64(6)
                word = _reversed(words[own + at])
                for part in range((size + PART - 1) // PART):
                    at = (at + one) & (count - one)
                    after = _reversed(words[own + at])
                    taken = (word << shift) | ((after >> one) >> (most - shift))
                    word = after
                    for j in range(PART):
                        total += curve[np.uint64(part), j] & (np.int64(taken << np.uint64(j)) >> np.int64(63))
                start = np.uint64(turned - line - span + 1) & around
                shift, at = start & most, start >> np.uint64(6)
                word, ones, places = _reversed(words[own + at]), np.uint64(0), np.uint64(0)
                for part in range((span + PART - 1) // PART):
                    at = (at + one) & (count - one)
                    after = _reversed(words[own + at])
                    taken = (word << shift) | ((after >> one) >> (most - shift))
                    word = after
                    left = span - PART * part
                    if left < PART:
                        taken &= ~(np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(left))
                    found = _ones(taken)
                    ones += found
                    if step:
                        places += np.uint64(PART * part) * found + _places(taken)
                sums[t, i] = total + value * np.int64(ones) + step * np.int64(places)
