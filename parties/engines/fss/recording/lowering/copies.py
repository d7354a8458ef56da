"""Copies, conversions, and what is made of copies."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from parties.engines.fss.recording.lowering.registry import lowers, opcode, reshaped
from parties.engines.fss.recording.memory import View
from parties.engines.fss.recording.notes import Notebook, Unsupported
from parties.engines.fss.recording.opcodes import Op


@lowers("clone", "_to_copy", "contiguous", "lift_fresh_copy")
def _clone(book: Notebook, out: View, a: Tensor, **_layout: Any) -> None:
    copy(book, out, None, a)


@lowers("copy")
def copy(book: Notebook, out: View, _old: Any, a: Any, _non_blocking: bool = False) -> None:
    """Copies a tensor to the output, broadcast and converted."""
    view = book.read(a, a.dtype)
    book.convert(out, view.expand(out.shape))


@lowers("fill")
def _fill(book: Notebook, out: View, _old: Any, value: Any) -> None:
    book.convert(out, book.read(value, out.dtype).expand(out.shape))


@lowers("zero")
def _zero(book: Notebook, out: View, _old: Any) -> None:
    _fill(book, out, None, 0)


@lowers("cat", "concatenate")
def _cat(book: Notebook, out: View, parts: Sequence[Tensor], dim: int = 0) -> None:
    dim %= len(out.shape)
    start = 0
    for part in parts:
        if part.dim() == len(out.shape):  # torch ignores an empty vector among matrices
            copy(book, out.select(dim, start, part.shape[dim]), None, part)
            start += part.shape[dim]


@lowers("stack")
def _stack(book: Notebook, out: View, parts: Sequence[Tensor], dim: int = 0) -> None:
    _cat(book, out, [part.unsqueeze(dim) for part in parts], dim)


@lowers("constant_pad_nd")
def _pad(book: Notebook, out: View, a: Tensor, pad: Sequence[int], value: Any = 0) -> None:
    if min(pad, default=0) < 0:
        raise Unsupported
    _fill(book, out, None, value)
    inside = out
    for k in range(len(pad) // 2):
        dim = a.dim() - 1 - k
        inside = inside.select(dim, pad[2 * k], a.shape[dim])
    copy(book, inside, None, a)


@lowers("repeat")
def _repeat(book: Notebook, out: View, a: Tensor, repeats: Sequence[int]) -> None:
    view = book.read(a, out.dtype)
    new = len(repeats) - len(view.shape)
    if any(size != own * times for size, own, times in zip(out.shape, (1,) * new + view.shape, repeats, strict=True)):
        raise Unsupported
    shape, target, source = [], [], []
    for d, times in enumerate(repeats):
        size, stride = (view.shape[d - new], view.strides[d - new]) if d >= new else (1, 0)
        shape += [times, size]
        target += [out.strides[d] * size, out.strides[d]]
        source += [0, stride]
    book.emit(
        Op.COPY_64 if out.dtype.itemsize == 8 else opcode("COPY", out.dtype),
        reshaped(out, shape, target),
        reshaped(view, shape, source),
    )


@lowers("flip")
def _flip(book: Notebook, out: View, a: Tensor, dims: Sequence[int]) -> None:
    view = book.read(a, out.dtype)
    strides, offset = list(view.strides), view.offset
    for dim in dims:
        offset += (view.shape[dim] - 1) * strides[dim] * view.dtype.itemsize
        strides[dim] = -strides[dim]
    turned = View(view.buffer, offset, view.dtype, view.shape, tuple(strides))
    book.emit(opcode("COPY", out.dtype), out, turned)
