"""`loops.table_sums` on a GPU: one program for each element and table."""

import triton
import triton.language as tl
from torch import Tensor

_FEW_CELLS, _MOST_CELLS = 256, 1024


@triton.jit(do_not_specialize=["mirrored", "octets", "turn", "out", "n", "rows", "length"])  # type: ignore[untyped-decorator]
def _summed(mirrored, octets, turn, out, n, rows, length, CELLS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Sums the cells of a rotated table whose bits are one, CELLS at a time."""
    element, table = tl.program_id(0).to(tl.int64), tl.program_id(1)
    start = length - 1 - tl.load(turn + element)
    turned = mirrored + (table * rows + element % rows) * 2 * length + start
    total = tl.zeros((CELLS,), dtype=tl.int64)
    for first in range(0, length, CELLS):
        place = first + tl.arange(0, CELLS)
        inside = place < length
        octet = tl.load(octets + element * (length // 8) + place // 8, mask=inside, other=0).to(tl.int64)
        total += tl.load(turned + place, mask=inside, other=0) * ((octet >> (7 - place % 8)) & 1)
    tl.store(out + table * n + element, tl.sum(total, axis=0))


def table_sums(mirrored: Tensor, bits: Tensor, turn: Tensor, sums: Tensor) -> None:
    """Sums bit j of element i times T[turn[i] - j] over j, for each table T.

    Args:
        mirrored: T[length - 1 - j], repeated: int64, [tables, rows, 2 length]; element i uses row i mod rows.
        bits: Packed bits, uint8, [n, length / 8].
        turn: Rotations, int64, [n], 0 to length - 1.
        sums: Output, int64, [tables, n].
    """
    (tables, rows, twice), n = mirrored.shape, turn.shape[0]
    if n:
        length = twice // 2
        cells = _MOST_CELLS if length >= _MOST_CELLS else _FEW_CELLS
        _summed[(n, tables)](mirrored, bits, turn, sums, n, rows, length, cells)
