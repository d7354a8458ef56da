"""The tape machine: one compiled function that interprets the instructions of `opcodes` on raw addresses.

It is compiled once; no shape compiles anything. The innermost dimension is a loop that LLVM vectorises when the strides
are one, or zero for an operand that is broadcast. Indices are checked, because nothing else keeps a replay within its
memory. No address depends on anything but the program and the index operands, which are public.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic

from parties.engines.fss.kernels.compiled import F, compiled
from parties.engines.fss.kernels.loops import pack_bits, unpack_bits
from parties.engines.fss.recording.opcodes import HEADER, MAX_RANK, Op

DONE = 0
OUT_OF_RANGE = 1

Rows = Callable[..., Any]


def _inner(function: F) -> F:
    """Marks a function that is compiled as a part of `execute`."""
    return cast("F", njit(function))


def _accessors(width: int, number: Any) -> tuple[Any, Any]:
    """Returns functions that read and write element i of the array at an address."""
    typed: Callable[[F], F] = intrinsic
    element = ir.IntType(width)

    def pointer(builder: Any, address: Any, index: Any) -> Any:
        return builder.gep(builder.inttoptr(address, element.as_pointer()), [index])

    @typed
    def load(_context: Any, _address: Any, _index: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            return builder.load(pointer(builder, *args), align=width // 8)

        return number(types.int64, types.int64), generate

    @typed
    def store(_context: Any, _address: Any, _index: Any, _value: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            builder.store(args[2], pointer(builder, args[0], args[1]), align=width // 8)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, number), generate

    return load, store


_load, _store = _accessors(64, types.int64)
_load8, _store8 = _accessors(8, types.uint8)


@intrinsic  # type: ignore[untyped-decorator]
def _octets(_context: Any, _address: Any) -> Any:
    """Returns the address as a pointer to uint8."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.CPointer(types.uint8)(types.int64), generate


def _elementwise(load: Any, store: Any, function: Rows, *, commutes: bool) -> Rows:
    """Returns the innermost loop of an operation on two operands; a broadcast one is on the right if it commutes."""
    function = _inner(function)

    @_inner
    def row(n: int, o: int, so: int, a: int, sa: int, b: int, sb: int) -> None:
        if so == 1 and sa == 1 and sb == 1:
            for i in range(n):
                store(o, i, function(load(a, i), load(b, i)))
        elif so == 1 and sa == 1 and sb == 0:
            right = load(b, 0)
            for i in range(n):
                store(o, i, function(load(a, i), right))
        elif not commutes and so == 1 and sa == 0 and sb == 1:
            left = load(a, 0)
            for i in range(n):
                store(o, i, function(left, load(b, i)))
        else:
            for i in range(n):
                store(o, i * so, function(load(a, i * sa), load(b, i * sb)))

    return row


def _converted(load: Any, store: Any, function: Rows) -> Rows:
    """Returns the innermost loop of an operation on one operand."""
    function = _inner(function)

    @_inner
    def row(n: int, o: int, so: int, a: int, sa: int) -> None:
        if so == 1 and sa == 1:
            for i in range(n):
                store(o, i, function(load(a, i)))
        elif so == 1 and sa == 0:
            value = function(load(a, 0))
            for i in range(n):
                store(o, i, value)
        else:
            for i in range(n):
                store(o, i * so, function(load(a, i * sa)))

    return row


def _chosen(load: Any, store: Any) -> Rows:
    """Returns the innermost loop of `where`."""

    @_inner
    def row(n: int, o: int, so: int, c: int, sc: int, a: int, sa: int, b: int, sb: int) -> None:
        if so == 1 and sc == 1 and sa == 1 and sb == 1:
            for i in range(n):
                yes, no = load(a, i), load(b, i)
                store(o, i, yes if _load8(c, i) else no)
        else:
            for i in range(n):
                yes, no = load(a, i * sa), load(b, i * sb)
                store(o, i * so, yes if _load8(c, i * sc) else no)

    return row


def _reduced(load: Any, read: Any, store: Any, function: Rows) -> Rows:
    """Returns the innermost loop of a reduction: across the output if its stride is 0, else element by element."""
    function = _inner(function)

    @_inner
    def row(n: int, o: int, so: int, a: int, sa: int) -> None:
        if so == 0:
            total = read(o, 0)
            if sa == 1:
                for i in range(n):
                    total = function(total, load(a, i))
            else:
                for i in range(n):
                    total = function(total, load(a, i * sa))
            store(o, 0, total)
        elif so == 1 and sa == 1:
            for i in range(n):
                store(o, i, function(read(o, i), load(a, i)))
        else:
            for i in range(n):
                store(o, i * so, function(read(o, i * so), load(a, i * sa)))

    return row


def _running(load: Any) -> Rows:
    """Returns the innermost loop of a cumulative sum."""

    @_inner
    def row(n: int, o: int, so: int, a: int, sa: int) -> None:
        total = np.int64(0)
        for i in range(n):
            total += np.int64(load(a, i * sa))
            _store(o, i * so, total)

    return row


@_inner
def _position(index: int, size: int) -> int:
    """Returns the index counted from the start, or -1 if it is out of range."""
    place = index + size if index < 0 else index
    return place if 0 <= place < size else -1


@_inner
def _placed(n: int, o: int, so: int, a: int, sa: int, b: int, sb: int, stride: int, size: int) -> int:
    for i in range(n):
        place = _position(_load(b, i * sb), size)
        if place < 0:
            return OUT_OF_RANGE
        _store(o, i * so, _load(a, i * sa) + place * stride)
    return DONE


def _gathered(load: Any, store: Any, width: int) -> Rows:
    """Returns the innermost loop of a gather."""

    @_inner
    def row(n: int, o: int, so: int, a: int, sa: int, b: int, sb: int, stride: int, size: int) -> int:
        if sa == 0:
            place = _position(_load(a, 0), size)
            if place < 0:
                return OUT_OF_RANGE
            start = b + place * stride * width
            for i in range(n):
                store(o, i * so, load(start, i * sb))
            return DONE
        for i in range(n):
            place = _position(_load(a, i * sa), size)
            if place < 0:
                return OUT_OF_RANGE
            store(o, i * so, load(b, i * sb + place * stride))
        return DONE

    return row


def _scattered(load: Any, store: Any, *, add: bool) -> Rows:
    """Returns the innermost loop of a scatter."""

    @_inner
    def row(n: int, o: int, so: int, a: int, sa: int, b: int, sb: int, stride: int, size: int) -> int:
        for i in range(n):
            place = _position(_load(a, i * sa), size)
            if place < 0:
                return OUT_OF_RANGE
            at = i * so + place * stride
            store(o, at, load(o, at) + load(b, i * sb) if add else load(b, i * sb))
        return DONE

    return row


def _shifted_left(a: int, b: int) -> int:
    return a << b if 0 <= b < 64 else 0


def _shifted_right(a: int, b: int) -> int:
    return a >> (b if 0 <= b < 64 else 63)


def _wide(function: Rows, *, commutes: bool = False) -> Rows:
    return _elementwise(_load, _store, function, commutes=commutes)


def _compared(function: Rows, *, commutes: bool = False) -> Rows:
    return _elementwise(_load, _store8, function, commutes=commutes)


def _narrow(function: Rows, *, commutes: bool = False) -> Rows:
    return _elementwise(_load8, _store8, function, commutes=commutes)


_copy_64 = _converted(_load, _store, lambda a: a)
_copy_8 = _converted(_load8, _store8, lambda a: a)
_widen = _converted(_load8, _store, lambda a: np.int64(a))
_narrowed = _converted(_load, _store8, lambda a: np.uint8(a))
_abs = _converted(_load, _store, lambda a: -a if a < 0 else a)
_add = _wide(lambda a, b: a + b, commutes=True)
_sub = _wide(lambda a, b: a - b)
_mul = _wide(lambda a, b: a * b, commutes=True)
_and = _wide(lambda a, b: a & b, commutes=True)
_or = _wide(lambda a, b: a | b, commutes=True)
_xor = _wide(lambda a, b: a ^ b, commutes=True)
_shl = _wide(_shifted_left)
_shr = _wide(_shifted_right)
_max = _wide(lambda a, b: a if a > b else b, commutes=True)
_min = _wide(lambda a, b: a if a < b else b, commutes=True)
_eq = _compared(lambda a, b: np.uint8(a == b), commutes=True)
_ne = _compared(lambda a, b: np.uint8(a != b), commutes=True)
_lt = _compared(lambda a, b: np.uint8(a < b))
_le = _compared(lambda a, b: np.uint8(a <= b))
_add_8 = _narrow(lambda a, b: np.uint8(a + b), commutes=True)
_sub_8 = _narrow(lambda a, b: np.uint8(a - b))
_mul_8 = _narrow(lambda a, b: np.uint8(a * b), commutes=True)
_and_8 = _narrow(lambda a, b: np.uint8(a & b), commutes=True)
_or_8 = _narrow(lambda a, b: np.uint8(a | b), commutes=True)
_xor_8 = _narrow(lambda a, b: np.uint8(a ^ b), commutes=True)
_ne_8 = _narrow(lambda a, b: np.uint8(a != b), commutes=True)
_where = _chosen(_load, _store)
_where_8 = _chosen(_load8, _store8)
_total = _reduced(_load, _load, _store, lambda total, a: total + a)
_total_8 = _reduced(_load8, _load, _store, lambda total, a: total + np.int64(a))
_largest = _reduced(_load, _load, _store, lambda total, a: a if a > total else total)
_smallest = _reduced(_load, _load, _store, lambda total, a: a if a < total else total)
_any = _reduced(_load8, _load8, _store8, lambda total, a: np.uint8(total | a))
_all = _reduced(_load8, _load8, _store8, lambda total, a: np.uint8(total & a))
_cumsum = _running(_load)
_cumsum_8 = _running(_load8)
_gather = _gathered(_load, _store, 8)
_gather_8 = _gathered(_load8, _store8, 1)
_scatter = _scattered(_load, _store, add=False)
_scatter_8 = _scattered(_load8, _store8, add=False)
_scatter_add = _scattered(_load, _store, add=True)


@_inner
def _row(
    op: int, n: int, o: int, so: int, a: int, sa: int, b: int, sb: int, c: int, sc: int, stride: int, size: int
) -> int:
    """Runs the innermost loop of an instruction. Constants of an enumeration are plain numbers to the compiler."""
    failed = DONE
    if op == Op.COPY_64:
        _copy_64(n, o, so, a, sa)
    elif op == Op.COPY_8:
        _copy_8(n, o, so, a, sa)
    elif op == Op.WIDEN:
        _widen(n, o, so, a, sa)
    elif op == Op.NARROW:
        _narrowed(n, o, so, a, sa)
    elif op == Op.ABS_64:
        _abs(n, o, so, a, sa)
    elif op == Op.TOTAL_64:
        _total(n, o, so, a, sa)
    elif op == Op.TOTAL_8:
        _total_8(n, o, so, a, sa)
    elif op == Op.LARGEST_64:
        _largest(n, o, so, a, sa)
    elif op == Op.SMALLEST_64:
        _smallest(n, o, so, a, sa)
    elif op == Op.ANY_8:
        _any(n, o, so, a, sa)
    elif op == Op.ALL_8:
        _all(n, o, so, a, sa)
    elif op == Op.CUMSUM_64:
        _cumsum(n, o, so, a, sa)
    elif op == Op.CUMSUM_8:
        _cumsum_8(n, o, so, a, sa)
    elif op == Op.ADD_64:
        _add(n, o, so, a, sa, b, sb)
    elif op == Op.SUB_64:
        _sub(n, o, so, a, sa, b, sb)
    elif op == Op.MUL_64:
        _mul(n, o, so, a, sa, b, sb)
    elif op == Op.AND_64:
        _and(n, o, so, a, sa, b, sb)
    elif op == Op.OR_64:
        _or(n, o, so, a, sa, b, sb)
    elif op == Op.XOR_64:
        _xor(n, o, so, a, sa, b, sb)
    elif op == Op.SHL_64:
        _shl(n, o, so, a, sa, b, sb)
    elif op == Op.SHR_64:
        _shr(n, o, so, a, sa, b, sb)
    elif op == Op.MAX_64:
        _max(n, o, so, a, sa, b, sb)
    elif op == Op.MIN_64:
        _min(n, o, so, a, sa, b, sb)
    elif op == Op.EQ_64:
        _eq(n, o, so, a, sa, b, sb)
    elif op == Op.NE_64:
        _ne(n, o, so, a, sa, b, sb)
    elif op == Op.LT_64:
        _lt(n, o, so, a, sa, b, sb)
    elif op == Op.LE_64:
        _le(n, o, so, a, sa, b, sb)
    elif op == Op.ADD_8:
        _add_8(n, o, so, a, sa, b, sb)
    elif op == Op.SUB_8:
        _sub_8(n, o, so, a, sa, b, sb)
    elif op == Op.MUL_8:
        _mul_8(n, o, so, a, sa, b, sb)
    elif op == Op.AND_8:
        _and_8(n, o, so, a, sa, b, sb)
    elif op == Op.OR_8:
        _or_8(n, o, so, a, sa, b, sb)
    elif op == Op.XOR_8:
        _xor_8(n, o, so, a, sa, b, sb)
    elif op == Op.NE_8:
        _ne_8(n, o, so, a, sa, b, sb)
    elif op == Op.WHERE_64:
        _where(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.WHERE_8:
        _where_8(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.PLACE:
        failed = _placed(n, o, so, a, sa, b, sb, stride, size)
    elif op == Op.GATHER_64:
        failed = _gather(n, o, so, a, sa, b, sb, stride, size)
    elif op == Op.GATHER_8:
        failed = _gather_8(n, o, so, a, sa, b, sb, stride, size)
    elif op == Op.SCATTER_64:
        failed = _scatter(n, o, so, a, sa, b, sb, stride, size)
    elif op == Op.SCATTER_8:
        failed = _scatter_8(n, o, so, a, sa, b, sb, stride, size)
    elif op == Op.SCATTER_ADD_64:
        failed = _scatter_add(n, o, so, a, sa, b, sb, stride, size)
    elif op == Op.PACK:
        pack_bits(carray(_octets(a), n), carray(_octets(o), (n + 7) // 8))
    elif op == Op.UNPACK:
        unpack_bits(carray(_octets(a), (n + 7) // 8), carray(_octets(o), n))
    return failed


@compiled("int64(int64[::1], int64, int64)")
def execute(program: Any, start: int, stop: int) -> Any:
    """Runs the instructions from word `start` up to word `stop`; returns `DONE`, or why the last one failed."""
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
    return DONE
