"""Operations on each element."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from parties.engines.fss.recording.lowering.registry import BOOL, OCTET, WIDE, Lowering, lowers, opcode
from parties.engines.fss.recording.memory import View
from parties.engines.fss.recording.notes import Notebook, Unsupported
from parties.engines.fss.recording.opcodes import Op

_MODULAR = {"ADD", "SUB", "MUL", "AND", "OR", "XOR"}  # the low bits of the result depend on low bits alone


def _binary(name: str) -> Callable[[Notebook, View, Any, Any], None]:
    """Returns the lowering of an operation on two operands of the output's dtype."""

    def lower(book: Notebook, out: View, a: Any, b: Any) -> None:
        if out.dtype == BOOL and name not in ("AND", "OR", "XOR"):
            raise Unsupported
        if (
            out.dtype == OCTET
            and name not in _MODULAR
            and any(isinstance(x, Tensor) and x.dtype == WIDE for x in (a, b))
        ):
            raise Unsupported
        op = opcode(name, out.dtype)
        book.emit(op, out, *(x if isinstance(x, View) else book.read(x, out.dtype) for x in (a, b)))

    return lower


for _names, _op_name in {
    ("mul", "multiply"): "MUL", ("maximum",): "MAX", ("minimum",): "MIN",
    ("bitwise_and", "__and__", "__iand__"): "AND", ("bitwise_or", "__or__", "__ior__"): "OR",
    ("bitwise_xor", "__xor__", "__ixor__"): "XOR", ("bitwise_left_shift", "__lshift__", "__ilshift__"): "SHL",
    ("bitwise_right_shift", "__rshift__", "__irshift__"): "SHR",
}.items():  # fmt: skip
    lowers(*_names)(_binary(_op_name))


@lowers("add")
def _add(book: Notebook, out: View, a: Any, b: Any, alpha: int = 1) -> None:
    _binary("ADD")(book, out, a, _scaled(book, out, b, alpha))


@lowers("sub")
def _sub(book: Notebook, out: View, a: Any, b: Any, alpha: int = 1) -> None:
    _binary("SUB")(book, out, a, _scaled(book, out, b, alpha))


@lowers("rsub")
def _rsub(book: Notebook, out: View, a: Any, b: Any, alpha: int = 1) -> None:
    if alpha != 1:
        raise Unsupported
    _sub(book, out, b, a)


def _scaled(book: Notebook, out: View, b: Any, alpha: int) -> Any:
    if alpha == 1:
        return b
    view = book.read(b, out.dtype)
    scaled = book.temporary(view.shape, out.dtype)
    book.emit(opcode("MUL", out.dtype), scaled, view, book.scalar(alpha, out.dtype))
    return scaled


@lowers("neg")
def _neg(book: Notebook, out: View, a: Any) -> None:
    _sub(book, out, 0, a)


@lowers("abs")
def _abs(book: Notebook, out: View, a: Any) -> None:
    book.emit(opcode("ABS", out.dtype), out, book.read(a, out.dtype))


@lowers("bitwise_not")
def _bitwise_not(book: Notebook, out: View, a: Any) -> None:
    ones = {WIDE: -1, OCTET: 255, BOOL: 1}
    book.emit(opcode("XOR", out.dtype), out, book.read(a, out.dtype), book.scalar(ones[out.dtype], out.dtype))


@lowers("logical_not")
def _logical_not(book: Notebook, out: View, a: Any) -> None:
    if a.dtype == BOOL:
        _bitwise_not(book, out, a)
    else:
        _comparison("EQ")(book, out, a, 0)


def _logical(name: str) -> Lowering:
    def lower(book: Notebook, out: View, a: Any, b: Any) -> None:
        if not out.dtype == a.dtype == b.dtype == BOOL:
            raise Unsupported
        _binary(name)(book, out, a, b)

    return lower


lowers("logical_and")(_logical("AND"))
lowers("logical_or")(_logical("OR"))
lowers("logical_xor")(_logical("XOR"))


def _comparison(name: str, *, swap: bool = False) -> Lowering:
    def lower(book: Notebook, out: View, a: Any, b: Any) -> None:
        if out.dtype not in (BOOL, OCTET):
            raise Unsupported
        dtype = torch.result_type(a, b)
        dtype = OCTET if dtype == BOOL else dtype
        if dtype == OCTET and any(not isinstance(x, Tensor) and not 0 <= x < 256 for x in (a, b)):
            raise Unsupported
        left, right = book.read(a, dtype), book.read(b, dtype)
        book.emit(opcode(name, dtype), out, *((right, left) if swap else (left, right)))

    return lower


for _packet, _name, _swap in (
    ("eq", "EQ", False), ("ne", "NE", False), ("lt", "LT", False), ("le", "LE", False), ("gt", "LT", True),
    ("ge", "LE", True),
):  # fmt: skip
    lowers(_packet)(_comparison(_name, swap=_swap))


@lowers("clamp")
def _clamp(book: Notebook, out: View, a: Any, least: Any = None, greatest: Any = None) -> None:
    opcode("MAX", out.dtype)
    view = book.read(a, out.dtype)
    if least is not None:
        limited = out if greatest is None else book.temporary(out.shape, out.dtype)
        book.emit(Op.MAX_64, limited, view, book.read(least, out.dtype))
        view = limited
    if greatest is not None:
        book.emit(Op.MIN_64, out, view, book.read(greatest, out.dtype))


@lowers("clamp_min")
def _clamp_min(book: Notebook, out: View, a: Any, least: Any) -> None:
    _clamp(book, out, a, least)


@lowers("clamp_max")
def _clamp_max(book: Notebook, out: View, a: Any, greatest: Any) -> None:
    _clamp(book, out, a, None, greatest)


@lowers("where")
def _where(book: Notebook, out: View, condition: Tensor, a: Any, b: Any) -> None:
    views = book.read(condition, BOOL), book.read(a, out.dtype), book.read(b, out.dtype)
    book.emit(opcode("WHERE", out.dtype), out, *views)


@lowers("masked_fill")
def _masked_fill(book: Notebook, out: View, a: Any, mask: Tensor, value: Any) -> None:
    _where(book, out, mask, value, a)
