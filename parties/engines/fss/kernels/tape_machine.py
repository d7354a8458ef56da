"""The tape machine on a GPU: one kernel interprets instructions on raw addresses; see `recording.machine`.

A launch runs some instructions one after the other. Each program takes blocks of their elements. With one program, an
instruction reads what earlier ones wrote; with several it may do so only at the same elements, since programs do not
wait for each other (`recording.launches`). One kernel serves all shapes, so nothing is compiled for a shape.
"""

import triton
import triton.language as tl
from torch import Tensor

from parties.engines.fss.kernels.device_rows import BLOCK, LENGTH, NAMES, OPERANDS, SHAPE

_WARPS = 8
(
    _COPY, _ABS, _ADD, _SUB, _MUL, _AND, _OR, _XOR, _SHL, _SHR, _CHECKED_SHIFT, _MAX, _MIN, _EQ, _NE, _LT, _LE,
    _WHERE, _MUL_ADD, _MUL_SUB, _SUB_MUL, _SUB_ADD, _ADD_ADD, _SHR_AND, _PLACE, _GATHER, _SCATTER, _SCATTER_ADD,
    _PACK, _UNPACK, _TOTAL, _LARGEST, _SMALLEST, _MUL_TOTAL, _CUMSUM,
) = (tl.constexpr(code) for code in range(len(NAMES)))  # fmt: skip
_OUT, _A, _B, _C = map(tl.constexpr, OPERANDS)
_SHAPE = tl.constexpr(SHAPE)
_LENGTH = tl.constexpr(LENGTH)
_LEAST = tl.constexpr(-(2**63))
_GREATEST = tl.constexpr(2**63 - 1)


@triton.jit
def _read(address, narrow, offset, inside):  # type: ignore[no-untyped-def]
    """Reads elements of an operand as int64."""
    if narrow != 0:
        value = tl.load(address.to(tl.pointer_type(tl.uint8)) + offset, mask=inside, other=0).to(tl.int64)
    else:
        value = tl.load(address.to(tl.pointer_type(tl.int64)) + offset, mask=inside, other=0)
    return value


@triton.jit
def _offsets(row, index):  # type: ignore[no-untyped-def]
    """Returns the offsets of elements in the four operands."""
    last = tl.load(row + 2).to(tl.int32) - 1
    out_step, a_step, b_step, c_step = _steps(row, 0)
    size = tl.load(row + _SHAPE).to(tl.int32)
    left = index
    here = left.to(tl.int64)
    if last > 0:
        here = (left % size).to(tl.int64)
    out, a, b, c = here * out_step, here * a_step, here * b_step, here * c_step
    for d in range(1, last + 1):
        left = left // size
        size = tl.load(row + _SHAPE + d).to(tl.int32)
        out_step, a_step, b_step, c_step = _steps(row, d)
        here = (left % size).to(tl.int64)
        out += here * out_step
        a += here * a_step
        b += here * b_step
        c += here * c_step
    return out, a, b, c


@triton.jit
def _steps(row, d):  # type: ignore[no-untyped-def]
    """Returns the strides of the four operands in a dimension."""
    at = row + 1 + d
    return tl.load(at + _OUT), tl.load(at + _A), tl.load(at + _B), tl.load(at + _C)


@triton.jit
def _computed(op, a, b, c):  # type: ignore[no-untyped-def]
    """Returns the result of an operation on each element."""
    result = a
    if op < _MAX:
        if op == _ADD:
            result = a + b
        elif op == _SUB:
            result = a - b
        elif op == _MUL:
            result = a * b
        elif op == _AND:
            result = a & b
        elif op == _OR:
            result = a | b
        elif op == _XOR:
            result = a ^ b
        elif op == _SHL:
            result = a << b
        elif (op == _SHR) | (op == _CHECKED_SHIFT):
            result = a >> b
        elif op == _ABS:
            result = tl.where(a < 0, -a, a)
    elif op < _MUL_ADD:
        if op == _MAX:
            result = tl.where(a > b, a, b)
        elif op == _MIN:
            result = tl.where(a < b, a, b)
        elif op == _EQ:
            result = (a == b).to(tl.int64)
        elif op == _NE:
            result = (a != b).to(tl.int64)
        elif op == _LT:
            result = (a < b).to(tl.int64)
        elif op == _LE:
            result = (a <= b).to(tl.int64)
        elif op == _WHERE:
            result = tl.where(a != 0, b, c)
    else:
        if op == _MUL_ADD:
            result = a * b + c
        elif op == _MUL_SUB:
            result = a * b - c
        elif op == _SUB_MUL:
            result = (a - b) * c
        elif op == _SUB_ADD:
            result = a - b + c
        elif op == _ADD_ADD:
            result = a + b + c
        elif op == _SHR_AND:
            result = (a >> b) & c
        elif op == _GATHER:
            result = b
    return result


@triton.jit
def _each(row, op, index, inside, wrong):  # type: ignore[no-untyped-def]
    """Runs an instruction on a block of elements. An index outside its dimension is not used but reported."""
    narrow, operands = tl.load(row + 5), tl.load(row + 6)
    stride, size = tl.load(row + 3), tl.load(row + 4)
    out, first, second, third = tl.load(row + _OUT), tl.load(row + _A), tl.load(row + _B), tl.load(row + _C)
    out_at, a_at, b_at, c_at = _offsets(row, index)
    if op == _UNPACK:
        a_at = (index // 8).to(tl.int64)
    a = _read(first, narrow & 2, a_at, inside)
    b, c = a, a
    if (operands > 3) & (op != _CHECKED_SHIFT):
        c = _read(third, narrow & 8, c_at, inside)
    if op == _UNPACK:
        a = (a >> (7 - index % 8).to(tl.int64)) & 1
    if (op >= _PLACE) & (op <= _SCATTER_ADD):
        if op == _PLACE:
            b = _read(second, narrow & 4, b_at, inside)
            place = tl.where(b < 0, b + size, b)
        else:
            place = tl.where(a < 0, a + size, a)
        good = (place >= 0) & (place < size)
        tl.store(wrong + index * 0, 1, mask=inside & (good == 0))
        inside = inside & good
        if op == _PLACE:
            a = a + place * stride
        elif op == _GATHER:
            b = _read(second, narrow & 4, b_at + place * stride, inside)
        else:
            b = _read(second, narrow & 4, b_at, inside)
            a = b
            out_at += place * stride
    elif operands > 2:
        b = _read(second, narrow & 4, b_at, inside)
    if op == _CHECKED_SHIFT:
        a += b
        outside = (a < -size) | (a >= size)
        tl.store(third.to(tl.pointer_type(tl.uint8)) + index * 0, 1, mask=inside & outside)
        b = b * 0 + stride
    if op == _SCATTER_ADD:
        tl.atomic_add(out.to(tl.pointer_type(tl.int64)) + out_at, b, mask=inside, sem="relaxed")
    else:
        result = _computed(op, a, b, c)
        if (narrow & 1) != 0:
            tl.store(out.to(tl.pointer_type(tl.uint8)) + out_at, result.to(tl.uint8), mask=inside)
        else:
            tl.store(out.to(tl.pointer_type(tl.int64)) + out_at, result, mask=inside)


@triton.jit
def _packed(row, index, inside):  # type: ignore[no-untyped-def]
    """Packs bits into a block of bytes; the number of bits is the first extra."""
    bits = tl.load(row + 3).to(tl.int32)
    result, source = index.to(tl.int64) * 0, tl.load(row + _A)
    for place in range(8):
        bit = index * 8 + place
        result |= _read(source, 1, bit.to(tl.int64), inside & (bit < bits)) << (7 - place)
    address = tl.load(row + _OUT)
    tl.store(address.to(tl.pointer_type(tl.uint8)) + index, result.to(tl.uint8), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _reduced(row, op, output, start, size, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Reduces a block of the elements of one output into it, together with other programs."""
    narrow = tl.load(row + 5)
    index = start + tl.arange(0, BLOCK)
    inside = index < size
    _, a_at, b_at, _ = _offsets(row, output * size + index)
    out_at, _, _, _ = _offsets(row, output * size)
    a = _read(tl.load(row + _A), narrow & 2, a_at, inside)
    if op == _MUL_TOTAL:
        a *= _read(tl.load(row + _B), 0, b_at, inside)
    address = tl.load(row + _OUT)
    if (narrow & 1) != 0:  # of one program, which takes its blocks one after the other
        octet = address.to(tl.pointer_type(tl.uint8)) + out_at
        old = tl.load(octet).to(tl.int64)
        if op == _LARGEST:
            new = tl.max(tl.where(inside, a, 0), axis=0)
            new = tl.where(new > old, new, old)
        else:
            new = tl.min(tl.where(inside, a, 1), axis=0)
            new = tl.where(new < old, new, old)
        tl.debug_barrier()
        tl.store(octet, new.to(tl.uint8))
        tl.debug_barrier()
    else:
        word = address.to(tl.pointer_type(tl.int64)) + out_at
        if (op == _TOTAL) | (op == _MUL_TOTAL):
            tl.atomic_add(word, tl.sum(a, axis=0), sem="relaxed")
        elif op == _LARGEST:
            tl.atomic_max(word, tl.max(tl.where(inside, a, _LEAST), axis=0), sem="relaxed")
        else:
            tl.atomic_min(word, tl.min(tl.where(inside, a, _GREATEST), axis=0), sem="relaxed")


@triton.jit  # type: ignore[untyped-decorator]
def _accumulated(row, line, size, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Writes the cumulative sums of a row, block by block."""
    narrow, address = tl.load(row + 5), tl.load(row + _OUT)
    before = tl.load(row + 4)  # 0
    for start in range(0, size, BLOCK):
        index = start + tl.arange(0, BLOCK)
        inside = index < size
        out_at, a_at, _, _ = _offsets(row, line * size + index)
        a = tl.where(inside, _read(tl.load(row + _A), narrow & 2, a_at, inside), 0)
        tl.store(address.to(tl.pointer_type(tl.int64)) + out_at, tl.cumsum(a, axis=0) + before, mask=inside)
        before += tl.sum(a, axis=0)


@triton.jit(do_not_specialize=["count"])  # type: ignore[untyped-decorator]
def _machine(rows, count, wrong, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Runs instructions; each program takes its blocks of every one."""
    first, programs = tl.program_id(0), tl.num_programs(0)
    next_op, next_elements = tl.load(rows).to(tl.int32), tl.load(rows + 1).to(tl.int32)
    for number in range(count):
        row = rows + number * _LENGTH
        op, elements = next_op, next_elements
        if number + 1 < count:  # read ahead, since a program waits for its next instruction longest
            next_op, next_elements = tl.load(row + _LENGTH).to(tl.int32), tl.load(row + _LENGTH + 1).to(tl.int32)
        if op < _TOTAL:
            for start in range(first * BLOCK, elements, programs * BLOCK):
                index = start + tl.arange(0, BLOCK)
                if op == _PACK:
                    _packed(row, index, index < elements)
                else:
                    _each(row, op, index, index < elements, wrong)
        elif op == _CUMSUM:
            for line in range(first, elements, programs):
                _accumulated(row, line, tl.load(row + 3).to(tl.int32), BLOCK)
        else:
            size = tl.load(row + 3).to(tl.int32)
            blocks = (size + BLOCK - 1) // BLOCK
            for part in range(first, elements * blocks, programs):
                _reduced(row, op, part // blocks, part % blocks * BLOCK, size, BLOCK)
        tl.debug_barrier()


def run(rows: Tensor, programs: int, wrong: Tensor) -> None:
    """Runs instructions.

    Args:
        rows: Int64, [instructions, LENGTH], on a GPU; see `device_rows`.
        programs: Number of programs.
        wrong: Int64, [1], on the GPU or pinned; set to 1 where an index is outside its dimension.
    """
    _machine[(programs,)](rows, len(rows), wrong, BLOCK, num_warps=_WARPS)
