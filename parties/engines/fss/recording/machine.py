"""The tape machine: one compiled function that interprets the instructions of `opcodes` on raw addresses.

It is compiled once; no shape compiles anything. The innermost dimension is a loop that LLVM vectorises when the strides
are one, or zero for an operand that is broadcast. Indices are checked, because nothing else keeps a replay within its
memory. No address depends on anything but the program and the index operands, which are public.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from parties.engines.fss.kernels.compiled import F, compiled
from parties.engines.fss.kernels.loops import pack_bits, unpack_bits
from parties.engines.fss.recording.opcodes import HEADER, MAX_RANK, Op

DONE = 0
OUT_OF_RANGE = 1

Rows = Callable[..., Any]
_INT64 = ir.IntType(64)


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


_CONTIGUOUS, _RIGHT_BROADCAST, _LEFT_BROADCAST = (1, 1, 1, 1), (1, 1, 0, 1), (1, 0, 1, 1)


def _elementwise(widths: Sequence[int], build: Callable[..., Any], *cases: Sequence[int]) -> Rows:
    """Returns the innermost loop of an operation on each element, as code for LLVM: typing it would take minutes.

    Args:
        widths: Bits of the output and of the operands.
        build: Builds the operation on one element.
        cases: Strides that get a loop of their own, which LLVM can vectorise; one more loop takes all others.
    """
    typed: Callable[[F], F] = intrinsic

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        operands = [
            (builder.inttoptr(args[1 + 2 * k], ir.IntType(width).as_pointer()), args[2 + 2 * k], width // 8)
            for k, width in enumerate(widths)
        ]

        def load(k: int, index: Any) -> Any:
            pointer, _, align = operands[k]
            return builder.load(builder.gep(pointer, [index]), align=align)

        def loop(case: Sequence[int] | None) -> None:
            first = {k: load(k, _INT64(0)) for k in range(1, len(operands)) if case and case[k] == 0}
            with cgutils.for_range(builder, args[0], intp=_INT64) as element:
                places = [element.index if case else builder.mul(element.index, stride) for _, stride, _ in operands]
                values = [first[k] if k in first else load(k, places[k]) for k in range(1, len(operands))]
                builder.store(build(builder, *values), builder.gep(operands[0][0], [places[0]]), align=operands[0][2])

        def choose(cases: Sequence[Sequence[int]]) -> None:
            if not cases:
                loop(None)
                return
            fits = [
                builder.icmp_signed("==", stride, _INT64(want))
                for (_, stride, _), want in zip(operands, cases[0], strict=False)
            ]
            with builder.if_else(reduce(builder.and_, fits)) as (then, otherwise):
                with then:
                    loop(cases[0])
                with otherwise:
                    choose(cases[1:])

        choose(cases)
        return _context.get_dummy_value()

    @typed
    def row(_context: Any, _n: Any, _o: Any, _so: Any, _a: Any, _sa: Any, _b: Any, _sb: Any, _c: Any, _sc: Any) -> Any:
        return types.void(*[types.int64] * 9), generate

    return cast("Rows", row)


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


def _binary(build: Callable[..., Any], *, width: int = 64, commutes: bool = True) -> Rows:
    """A broadcast operand of an operation that commutes is on the right."""
    cases = (_CONTIGUOUS, _RIGHT_BROADCAST, *(() if commutes else (_LEFT_BROADCAST,)))
    return _elementwise((width, width, width), build, *cases)


def _comparison(operator: str, *, width: int = 64) -> Rows:
    def build(builder: Any, a: Any, b: Any) -> Any:
        return builder.zext(builder.icmp_signed(operator, a, b), ir.IntType(8))

    cases = _CONTIGUOUS, _RIGHT_BROADCAST, *(() if operator in ("==", "!=") else (_LEFT_BROADCAST,))
    return _elementwise((8, width, width), build, *cases)


def _converted(out: int, width: int, build: Callable[..., Any]) -> Rows:
    return _elementwise((out, width), build, _CONTIGUOUS[:2], _RIGHT_BROADCAST[1:3])


def _shifted_left(builder: Any, a: Any, b: Any) -> Any:
    """Shifts of 64 bits and more, which LLVM leaves undefined, give 0."""
    shifted = builder.shl(a, builder.and_(b, _INT64(63)))
    return builder.select(builder.icmp_unsigned("<", b, _INT64(64)), shifted, _INT64(0))


def _shifted_right(builder: Any, a: Any, b: Any) -> Any:
    return builder.ashr(a, builder.select(builder.icmp_unsigned("<", b, _INT64(64)), b, _INT64(63)))


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed(">", a, b), a, b)


def _smaller(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def _if(builder: Any, condition: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_unsigned("!=", condition, ir.IntType(8)(0)), a, b)


_copy_64 = _converted(64, 64, lambda _, a: a)
_copy_8 = _converted(8, 8, lambda _, a: a)
_widen = _converted(64, 8, lambda builder, a: builder.zext(a, _INT64))
_narrowed = _converted(8, 64, lambda builder, a: builder.trunc(a, ir.IntType(8)))
_abs = _converted(64, 64, lambda builder, a: _larger(builder, a, builder.neg(a)))
_add = _binary(lambda builder, a, b: builder.add(a, b))
_sub = _binary(lambda builder, a, b: builder.sub(a, b), commutes=False)
_mul = _binary(lambda builder, a, b: builder.mul(a, b))
_and = _binary(lambda builder, a, b: builder.and_(a, b))
_or = _binary(lambda builder, a, b: builder.or_(a, b))
_xor = _binary(lambda builder, a, b: builder.xor(a, b))
_shl = _binary(_shifted_left, commutes=False)
_shr = _binary(_shifted_right, commutes=False)
_max = _binary(_larger)
_min = _binary(_smaller)
_eq, _ne, _lt, _le = _comparison("=="), _comparison("!="), _comparison("<"), _comparison("<=")
_add_8 = _binary(lambda builder, a, b: builder.add(a, b), width=8)
_sub_8 = _binary(lambda builder, a, b: builder.sub(a, b), width=8, commutes=False)
_mul_8 = _binary(lambda builder, a, b: builder.mul(a, b), width=8)
_and_8 = _binary(lambda builder, a, b: builder.and_(a, b), width=8)
_or_8 = _binary(lambda builder, a, b: builder.or_(a, b), width=8)
_xor_8 = _binary(lambda builder, a, b: builder.xor(a, b), width=8)
_ne_8 = _comparison("!=", width=8)
_where = _elementwise((64, 8, 64, 64), _if, _CONTIGUOUS)
_where_8 = _elementwise((8, 8, 8, 8), _if, _CONTIGUOUS)
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
        _copy_64(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.COPY_8:
        _copy_8(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.WIDEN:
        _widen(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.NARROW:
        _narrowed(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.ABS_64:
        _abs(n, o, so, a, sa, b, sb, c, sc)
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
        _add(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.SUB_64:
        _sub(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.MUL_64:
        _mul(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.AND_64:
        _and(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.OR_64:
        _or(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.XOR_64:
        _xor(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.SHL_64:
        _shl(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.SHR_64:
        _shr(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.MAX_64:
        _max(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.MIN_64:
        _min(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.EQ_64:
        _eq(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.NE_64:
        _ne(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.LT_64:
        _lt(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.LE_64:
        _le(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.ADD_8:
        _add_8(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.SUB_8:
        _sub_8(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.MUL_8:
        _mul_8(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.AND_8:
        _and_8(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.OR_8:
        _or_8(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.XOR_8:
        _xor_8(n, o, so, a, sa, b, sb, c, sc)
    elif op == Op.NE_8:
        _ne_8(n, o, so, a, sa, b, sb, c, sc)
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
