"""The tape machine: one compiled function that interprets the instructions of `opcodes` on raw addresses.

It is compiled once; no shape compiles anything. The innermost dimension is a loop of `rows`. No address depends on
anything but the program and the index operands, which are public.
"""

from typing import Any

import numpy as np
from numba import carray

from parties.engines.fss.kernels.compiled import compiled
from parties.engines.fss.kernels.loops import pack_bits, unpack_bits
from parties.engines.fss.recording import fused_rows, rows
from parties.engines.fss.recording.opcodes import HEADER, MAX_RANK, Op


@rows.inner
def _row(
    op: int, n: int, o: int, so: int, a: int, sa: int, b: int, sb: int, c: int, sc: int, stride: int, size: int
) -> int:
    """Runs the innermost loop of an instruction. Constants of an enumeration are plain numbers to the compiler."""
    failed = rows.DONE
    if op == Op.COPY_64:
        rows.copy_64(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.COPY_8:
        rows.copy_8(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.WIDEN:
        rows.widen(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.NARROW:
        rows.narrow(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.ABS_64:
        rows.abs_64(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.TOTAL_64:
        rows.total_64(n, o, so, a, sa)
    elif op == Op.TOTAL_8:
        rows.total_8(n, o, so, a, sa)
    elif op == Op.LARGEST_64:
        rows.largest_64(n, o, so, a, sa)
    elif op == Op.SMALLEST_64:
        rows.smallest_64(n, o, so, a, sa)
    elif op == Op.ANY_8:
        rows.any_8(n, o, so, a, sa)
    elif op == Op.ALL_8:
        rows.all_8(n, o, so, a, sa)
    elif op == Op.CUMSUM_64:
        rows.cumsum_64(n, o, so, a, sa)
    elif op == Op.CUMSUM_8:
        rows.cumsum_8(n, o, so, a, sa)
    elif op == Op.ADD_64:
        rows.add_64(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.SUB_64:
        rows.sub_64(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.MUL_64:
        rows.mul_64(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.AND_64:
        rows.and_64(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.OR_64:
        rows.or_64(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.XOR_64:
        rows.xor_64(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.SHL_64:
        rows.shl_64(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.SHR_64:
        rows.shr_64(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.MAX_64:
        rows.max_64(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.MIN_64:
        rows.min_64(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.EQ_64:
        rows.eq_64(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.NE_64:
        rows.ne_64(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.LT_64:
        rows.lt_64(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.LE_64:
        rows.le_64(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.ADD_8:
        rows.add_8(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.SUB_8:
        rows.sub_8(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.MUL_8:
        rows.mul_8(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.AND_8:
        rows.and_8(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.OR_8:
        rows.or_8(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.XOR_8:
        rows.xor_8(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.NE_8:
        rows.ne_8(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.WHERE_64:
        rows.where_64(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.WHERE_8:
        rows.where_8(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.PLACE:
        failed = rows.place(n, o, so, a, sa, b, sb, stride, size)
    elif op == Op.GATHER_64:
        failed = rows.gather_64(n, o, so, a, sa, b, sb, stride, size)
    elif op == Op.GATHER_8:
        failed = rows.gather_8(n, o, so, a, sa, b, sb, stride, size)
    elif op == Op.SCATTER_64:
        failed = rows.scatter_64(n, o, so, a, sa, b, sb, stride, size)
    elif op == Op.SCATTER_8:
        failed = rows.scatter_8(n, o, so, a, sa, b, sb, stride, size)
    elif op == Op.SCATTER_ADD_64:
        failed = rows.scatter_add_64(n, o, so, a, sa, b, sb, stride, size)
    elif op == Op.CHECKED_SHIFT:
        fused_rows.checked_shift(n, o, so, a, sa, b, sb, c, stride, size)
    elif op == Op.MUL_ADD_64:
        fused_rows.mul_add_64(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.MUL_SUB_64:
        fused_rows.mul_sub_64(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.SUB_MUL_64:
        fused_rows.sub_mul_64(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.SUB_ADD_64:
        fused_rows.sub_add_64(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.ADD_ADD_64:
        fused_rows.add_add_64(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.SHR_AND_64:
        fused_rows.shr_and_64(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.MUL_TOTAL_64:
        fused_rows.mul_total_64(n, o, so, a, sa, b, sb)
    elif op == Op.PACK:
        pack_bits(carray(rows.octets(a), n), carray(rows.octets(o), (n + 7) // 8))
    elif op == Op.UNPACK:
        unpack_bits(carray(rows.octets(a), (n + 7) // 8), carray(rows.octets(o), n))
    return failed


@compiled("int64(int64[::1], int64, int64)")
def execute(program: Any, start: int, stop: int) -> Any:
    """Runs the instructions from word `start` up to word `stop`; returns `rows.DONE`, or why the last one failed."""
    place = np.empty(MAX_RANK, np.int64)
    at = start
    while at < stop:
        op, rank, operands = program[at + 1], program[at + 2], program[at + 3]
        stride, size = program[at + 4], program[at + 5]
        shape = at + HEADER
        first = shape + rank
        step = rank + 1
        second, third, fourth = first + step, first + 2 * step, first + 3 * step
        n = program[first - 1]
        o, so = program[first], program[first + rank]
        a, sa = program[second], program[second + rank]
        b = sb = c = sc = 0
        if operands > 2:
            b, sb = program[third], program[third + rank]
        if operands > 3:
            c, sc = program[fourth], program[fourth + rank]
        outer = np.int64(1)
        for d in range(rank - 1):
            outer *= program[shape + d]
            place[d] = 0
        for _ in range(outer):
            failed = _row(op, n, o, so, a, sa, b, sb, c, sc, stride, size)
            if failed:
                return failed
            for d in range(rank - 2, -1, -1):
                place[d] += 1
                back = 0 if place[d] < program[shape + d] else program[shape + d]
                o += program[first + 1 + d] * (1 - back)
                a += program[second + 1 + d] * (1 - back)
                if operands > 2:
                    b += program[third + 1 + d] * (1 - back)
                if operands > 3:
                    c += program[fourth + 1 + d] * (1 - back)
                if not back:
                    break
                place[d] = 0
        at += program[at]
    return rows.DONE
