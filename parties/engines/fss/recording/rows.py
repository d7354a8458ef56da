"""The innermost loops of the tape machine, by the names of their opcodes.

The innermost dimension is a loop that LLVM vectorises when the strides are one, or zero for an operand that is
broadcast. Indices are checked, because nothing else keeps a replay within its memory.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from parties.engines.fss.kernels.compiled import F

DONE = 0
OUT_OF_RANGE = 1

Rows = Callable[..., Any]
_INT64 = ir.IntType(64)


def inner(function: F) -> F:
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


load_64, store_64 = _accessors(64, types.int64)
load_8, store_8 = _accessors(8, types.uint8)


@intrinsic  # type: ignore[untyped-decorator]
def octets(_context: Any, _address: Any) -> Any:
    """Returns the address as a pointer to uint8."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.CPointer(types.uint8)(types.int64), generate


CONTIGUOUS, RIGHT_BROADCAST, _LEFT_BROADCAST = (1, 1, 1, 1), (1, 1, 0, 1), (1, 0, 1, 1)


def elementwise(widths: Sequence[int], build: Callable[..., Any], *cases: Sequence[int]) -> Rows:
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
    function = inner(function)

    @inner
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

    @inner
    def row(n: int, o: int, so: int, a: int, sa: int) -> None:
        total = np.int64(0)
        for i in range(n):
            total += np.int64(load(a, i * sa))
            store_64(o, i * so, total)

    return row


@inner
def _position(index: int, size: int) -> int:
    """Returns the index counted from the start, or -1 if it is out of range."""
    place = index + size if index < 0 else index
    return place if 0 <= place < size else -1


@inner
def place(n: int, o: int, so: int, a: int, sa: int, b: int, sb: int, stride: int, size: int) -> int:
    """Adds checked places to the second operand."""
    for i in range(n):
        found = _position(load_64(b, i * sb), size)
        if found < 0:
            return OUT_OF_RANGE
        store_64(o, i * so, load_64(a, i * sa) + found * stride)
    return DONE


def _gathered(load: Any, store: Any, width: int) -> Rows:
    """Returns the innermost loop of a gather."""

    @inner
    def row(n: int, o: int, so: int, a: int, sa: int, b: int, sb: int, stride: int, size: int) -> int:
        if sa == 0:
            place = _position(load_64(a, 0), size)
            if place < 0:
                return OUT_OF_RANGE
            start = b + place * stride * width
            for i in range(n):
                store(o, i * so, load(start, i * sb))
            return DONE
        for i in range(n):
            place = _position(load_64(a, i * sa), size)
            if place < 0:
                return OUT_OF_RANGE
            store(o, i * so, load(b, i * sb + place * stride))
        return DONE

    return row


def _scattered(load: Any, store: Any, *, add: bool) -> Rows:
    """Returns the innermost loop of a scatter."""

    @inner
    def row(n: int, o: int, so: int, a: int, sa: int, b: int, sb: int, stride: int, size: int) -> int:
        for i in range(n):
            place = _position(load_64(a, i * sa), size)
            if place < 0:
                return OUT_OF_RANGE
            at = i * so + place * stride
            store(o, at, load(o, at) + load(b, i * sb) if add else load(b, i * sb))
        return DONE

    return row


def _binary(build: Callable[..., Any], *, width: int = 64, commutes: bool = True) -> Rows:
    """A broadcast operand of an operation that commutes is on the right."""
    cases = (CONTIGUOUS, RIGHT_BROADCAST, *(() if commutes else (_LEFT_BROADCAST,)))
    return elementwise((width, width, width), build, *cases)


def _comparison(operator: str, *, width: int = 64) -> Rows:
    def build(builder: Any, a: Any, b: Any) -> Any:
        return builder.zext(builder.icmp_signed(operator, a, b), ir.IntType(8))

    cases = CONTIGUOUS, RIGHT_BROADCAST, *(() if operator in ("==", "!=") else (_LEFT_BROADCAST,))
    return elementwise((8, width, width), build, *cases)


def _converted(out: int, width: int, build: Callable[..., Any]) -> Rows:
    return elementwise((out, width), build, CONTIGUOUS[:2], RIGHT_BROADCAST[1:3])


def _shifted_left(builder: Any, a: Any, b: Any) -> Any:
    """Shifts of 64 bits and more, which LLVM leaves undefined, give 0."""
    shifted = builder.shl(a, builder.and_(b, _INT64(63)))
    return builder.select(builder.icmp_unsigned("<", b, _INT64(64)), shifted, _INT64(0))


def shifted_right(builder: Any, a: Any, b: Any) -> Any:
    """Builds an arithmetic shift; by 64 bits and more, which LLVM leaves undefined, it is one by 63."""
    return builder.ashr(a, builder.select(builder.icmp_unsigned("<", b, _INT64(64)), b, _INT64(63)))


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed(">", a, b), a, b)


def _smaller(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def _if(builder: Any, condition: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_unsigned("!=", condition, ir.IntType(8)(0)), a, b)


copy_64 = _converted(64, 64, lambda _, a: a)
copy_8 = _converted(8, 8, lambda _, a: a)
widen = _converted(64, 8, lambda builder, a: builder.zext(a, _INT64))
narrow = _converted(8, 64, lambda builder, a: builder.trunc(a, ir.IntType(8)))
abs_64 = _converted(64, 64, lambda builder, a: _larger(builder, a, builder.neg(a)))
add_64 = _binary(lambda builder, a, b: builder.add(a, b))
sub_64 = _binary(lambda builder, a, b: builder.sub(a, b), commutes=False)
mul_64 = _binary(lambda builder, a, b: builder.mul(a, b))
and_64 = _binary(lambda builder, a, b: builder.and_(a, b))
or_64 = _binary(lambda builder, a, b: builder.or_(a, b))
xor_64 = _binary(lambda builder, a, b: builder.xor(a, b))
shl_64 = _binary(_shifted_left, commutes=False)
shr_64 = _binary(shifted_right, commutes=False)
max_64 = _binary(_larger)
min_64 = _binary(_smaller)
eq_64, ne_64, lt_64, le_64 = _comparison("=="), _comparison("!="), _comparison("<"), _comparison("<=")
add_8 = _binary(lambda builder, a, b: builder.add(a, b), width=8)
sub_8 = _binary(lambda builder, a, b: builder.sub(a, b), width=8, commutes=False)
mul_8 = _binary(lambda builder, a, b: builder.mul(a, b), width=8)
and_8 = _binary(lambda builder, a, b: builder.and_(a, b), width=8)
or_8 = _binary(lambda builder, a, b: builder.or_(a, b), width=8)
xor_8 = _binary(lambda builder, a, b: builder.xor(a, b), width=8)
ne_8 = _comparison("!=", width=8)
where_64 = elementwise((64, 8, 64, 64), _if, CONTIGUOUS)
where_8 = elementwise((8, 8, 8, 8), _if, CONTIGUOUS)
total_64 = _reduced(load_64, load_64, store_64, lambda total, a: total + a)
total_8 = _reduced(load_8, load_64, store_64, lambda total, a: total + np.int64(a))
largest_64 = _reduced(load_64, load_64, store_64, lambda total, a: a if a > total else total)
smallest_64 = _reduced(load_64, load_64, store_64, lambda total, a: a if a < total else total)
any_8 = _reduced(load_8, load_8, store_8, lambda total, a: np.uint8(total | a))
all_8 = _reduced(load_8, load_8, store_8, lambda total, a: np.uint8(total & a))
cumsum_64 = _running(load_64)
cumsum_8 = _running(load_8)
gather_64 = _gathered(load_64, store_64, 8)
gather_8 = _gathered(load_8, store_8, 1)
scatter_64 = _scattered(load_64, store_64, add=False)
scatter_8 = _scattered(load_8, store_8, add=False)
scatter_add_64 = _scattered(load_64, store_64, add=True)
