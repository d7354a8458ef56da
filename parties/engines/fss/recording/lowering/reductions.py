"""Sums, extremes and cumulative sums."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from parties.engines.fss.recording.lowering.registry import (
    BOOL,
    LOWERINGS,
    OCTET,
    WIDE,
    Lowering,
    lowers,
    opcode,
    reshaped,
)
from parties.engines.fss.recording.memory import View
from parties.engines.fss.recording.notes import Notebook, Unsupported

LEAST, GREATEST = -(2**63), 2**63 - 1


def _reduction(name: str, start: int) -> Lowering:
    def lower(book: Notebook, out: View, a: Tensor, dim: Any = None, keepdim: bool = False, **dtype: Any) -> None:
        if dtype.get("dtype") not in (None, WIDE):
            raise Unsupported
        view = _numbers(book, out, a, name)
        book.convert(out, book.scalar(start, out.dtype).expand(out.shape))
        book.emit(opcode(name, view.dtype), _across(out, view, dim, keepdim=keepdim), view)

    return lower


def _numbers(book: Notebook, out: View, a: Tensor, name: str) -> View:
    """Returns the operand of a reduction in the dtype that its instruction reads."""
    if name in ("ANY", "ALL"):
        if out.dtype != BOOL:
            raise Unsupported
        return book.read(a, BOOL)
    if out.dtype != WIDE or (name != "TOTAL" and a.dtype != WIDE):
        raise Unsupported
    return book.read(a, OCTET if a.dtype == BOOL else a.dtype)


def _across(out: View, view: View, dim: Any, *, keepdim: bool) -> View:
    """Returns the output with stride 0 along the reduced dimensions of the operand."""
    rank = len(view.shape)
    dims = [dim] if isinstance(dim, int) else dim
    reduced = {d % rank for d in dims} if dims and rank else set(range(rank))
    steps = iter(out.strides)
    strides = []
    for d in range(rank):
        step = next(steps) if keepdim or d not in reduced else 0
        strides.append(0 if d in reduced else step)
    return reshaped(out, view.shape, strides)


lowers("sum")(_reduction("TOTAL", 0))
lowers("amax")(_reduction("LARGEST", LEAST))
lowers("amin")(_reduction("SMALLEST", GREATEST))
lowers("any")(_reduction("ANY", 0))
lowers("all")(_reduction("ALL", 1))


@lowers("max")
def _max(book: Notebook, out: View, a: Tensor) -> None:
    LOWERINGS["amax"](book, out, a)


@lowers("min")
def _min(book: Notebook, out: View, a: Tensor) -> None:
    LOWERINGS["amin"](book, out, a)


@lowers("aminmax")
def _aminmax(book: Notebook, outs: Sequence[View], a: Tensor, dim: Any = None, keepdim: bool = False) -> None:
    for name, out in zip(("amin", "amax"), outs, strict=True):
        LOWERINGS[name](book, out, a, dim, keepdim)


@lowers("cumsum")
def _cumsum(book: Notebook, out: View, a: Tensor, dim: int, **dtype: Any) -> None:
    if dtype.get("dtype") not in (None, WIDE) or out.dtype != WIDE:
        raise Unsupported
    view = book.read(a, OCTET if a.dtype == BOOL else a.dtype)
    order = [d for d in range(len(out.shape)) if d != dim % max(1, len(out.shape))]
    order += [dim % len(out.shape)] if out.shape else []
    moved = [
        reshaped(own, [own.shape[d] for d in order] or [1], [own.strides[d] for d in order] or [0])
        for own in (out, view)
    ]
    book.emit(opcode("CUMSUM", view.dtype), *moved)
