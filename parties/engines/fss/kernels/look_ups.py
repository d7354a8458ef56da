"""`table_sums.table_sums` on a GPU: a lane sums for an element of its own, or for parts of its table.

The table stays where it is and the bits are shifted, so that lanes of different elements read the same cell at the same
time.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from parties.engines.fss.kernels.keystream import reversed_bytes
from parties.engines.fss.kernels.table_sums import FIELDS, PART

_LANES = 32
_FEW, _SOME = 1 << 10, 1 << 15  # elements
WAYS = 32, 8, 1
"""Lanes that share an element, where there are few, some and many."""


@triton.jit
def _word(words, place):  # type: ignore[no-untyped-def]
    """Loads words whose first bit is the highest of their first byte."""
    return reversed_bytes(tl.load(words + place)).to(tl.uint64, bitcast=True)


@triton.jit  # type: ignore[untyped-decorator]
def _mask(bits, place: tl.constexpr):  # type: ignore[no-untyped-def]
    """Returns -1 where the bit at a place is one, the highest being the first, and 0 elsewhere."""
    half = (bits >> (32 if place < 32 else 0)).to(tl.uint32)
    return ((half << (place % 32)).to(tl.int32, bitcast=True) >> 31).to(tl.int64)


@triton.jit
def _bits(words, start, part, last):  # type: ignore[no-untyped-def]
    """Returns the 64 bits from place start + 64 part on, on the circle of last + 1 words."""
    at, shift = (start >> 6) + part, (start & 63).to(tl.uint64)
    return (_word(words, at & last) << shift) | ((_word(words, (at + 1) & last) >> 1) >> (63 - shift))


@triton.jit(do_not_specialize=["curves", "lines", "words", "turn", "out", "n", "rows", "parts", "count"])  # type: ignore[untyped-decorator]
def _summed(  # type: ignore[no-untyped-def]
    curves, lines, words, turn, out, n, rows, parts, count,
    ELEMENTS: tl.constexpr, WAYS: tl.constexpr, PART: tl.constexpr, FIELDS: tl.constexpr,
):  # fmt: skip
    """Sums for ELEMENTS elements and one table, whose rows of bits have `count` words; WAYS lanes share an element."""
    element, table = tl.program_id(0) * ELEMENTS + tl.arange(0, ELEMENTS)[:, None], tl.program_id(1)
    inside = element < n
    element, way = tl.where(inside, element, 0).to(tl.int64), tl.arange(0, WAYS)[None, :]
    row, own, last = table * rows + element % rows, words + element * count, count - 1
    turned, fields = tl.load(turn + element), lines + row * FIELDS
    first, size, line, span = tl.load(fields), tl.load(fields + 1), tl.load(fields + 2), tl.load(fields + 3)
    value, step = tl.load(fields + 4), tl.load(fields + 5)
    total = tl.zeros((ELEMENTS, WAYS), dtype=tl.int64)
    for before in range(0, parts, WAYS):
        part = before + way
        bits = tl.where(part < parts, _bits(own, turned - first - size + 1, part, last), 0)
        curve = curves + (row * parts + tl.where(part < parts, part, 0)) * PART
        for place in tl.static_range(PART):
            total += tl.load(curve + place) & _mask(bits, place)
    for before in range(0, (tl.max(tl.max(span, axis=1), axis=0) + PART - 1) // PART, WAYS):
        part = before + way
        bits, left = _bits(own, turned - line - span + 1, part, last), span - part * PART
        cell = value + step * (part * PART)
        for place in tl.static_range(PART):
            total += tl.where(place < left, cell & _mask(bits, place), 0)
            cell += step
    at = out + table.to(tl.int64) * n + element
    tl.store(at, tl.sum(total, axis=1, keep_dims=True), mask=inside)


def table_sums(curves: Tensor, lines: Tensor, bits: Tensor, turn: Tensor, sums: Tensor) -> None:
    """Sums on one GPU; see `table_sums.table_sums` for the arguments."""
    n, parts = turn.shape[0], curves.shape[2]
    few, some, many = WAYS
    launch(curves, lines, bits, turn, sums, few if n <= _FEW else some if n <= _SOME and parts > 2 else many)


def launch(curves: Tensor, lines: Tensor, bits: Tensor, turn: Tensor, sums: Tensor, ways: int) -> None:
    """Does what `table_sums` does, with so many lanes for each element."""
    (tables, rows, parts, _), n = curves.shape, turn.shape[0]
    if n:
        words, elements = bits.view(torch.int64), _LANES // ways
        _summed[(triton.cdiv(n, elements), tables)](
            curves, lines, words, turn, sums, n, rows, parts, words.shape[1], elements, ways, PART, FIELDS, num_warps=1
        )
