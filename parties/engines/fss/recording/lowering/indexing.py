"""Reads and writes at indices."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from parties.engines.fss.recording.lowering.copies import copy
from parties.engines.fss.recording.lowering.registry import WIDE, lowers, opcode, reshaped
from parties.engines.fss.recording.memory import View
from parties.engines.fss.recording.notes import Notebook, Unsupported
from parties.engines.fss.recording.opcodes import Op


@lowers("gather")
def _gather(book: Notebook, out: View, a: Tensor, dim: int, index: Tensor, **_sparse: Any) -> None:
    view, places = book.read(a, out.dtype), book.read(index, WIDE)
    if not a.dim() or not out.shape:
        raise Unsupported
    dim %= a.dim()
    book.emit(opcode("GATHER", out.dtype), out, places, _without(view, dim, out.shape), extras=_extras(view, dim))


@lowers("scatter")
def _scatter(book: Notebook, out: View, a: Tensor, dim: int, index: Tensor, value: Any, **reduce: Any) -> None:
    if reduce:
        raise Unsupported
    _scattered(book, out, a, dim, index, value, "SCATTER")


@lowers("scatter_add")
def _scatter_add(book: Notebook, out: View, a: Tensor, dim: int, index: Tensor, value: Any) -> None:
    _scattered(book, out, a, dim, index, value, "SCATTER_ADD")


def _scattered(book: Notebook, out: View, a: Tensor, dim: int, index: Tensor, value: Any, name: str) -> None:
    if not a.dim() or index.dim() != a.dim():
        raise Unsupported
    op = opcode(name, out.dtype)
    dim %= a.dim()
    places = book.read(index, WIDE)
    _start(book, out, a)
    values = book.read(value, out.dtype)
    values = reshaped(values, places.shape, values.strides if values.shape else (0,) * len(places.shape))
    book.emit(op, _without(out, dim, places.shape), places, values, extras=_extras(out, dim))


def _start(book: Notebook, out: View, a: Tensor) -> None:
    """Copies the operand to the output, unless the operation is in place."""
    if book.storages.view(a) != out:
        copy(book, out, None, a)


def _without(view: View, dim: int, shape: Sequence[int]) -> View:
    """Returns the view with another shape and stride 0 along a dimension, which an index steps along."""
    return reshaped(view, shape, [0 if d == dim else stride for d, stride in enumerate(view.strides)])


def _extras(view: View, dim: int) -> tuple[int, int]:
    return view.strides[dim], view.shape[dim]


@lowers("index_select")
def _index_select(book: Notebook, out: View, a: Tensor, dim: int, index: Tensor) -> None:
    if not a.dim() or not index.dim():
        raise Unsupported
    _index(book, out, a, [None] * (dim % a.dim()) + [index])


@lowers("embedding")
def _embedding(book: Notebook, out: View, weight: Tensor, index: Tensor, *_training: Any) -> None:
    _index(book, out, weight, [index])


@lowers("index_copy")
def _index_copy(book: Notebook, out: View, a: Tensor, dim: int, index: Tensor, source: Tensor) -> None:
    if not a.dim() or index.dim() != 1:
        raise Unsupported
    _index_put(book, out, a, [None] * (dim % a.dim()) + [index], source)


@lowers("index_add")
def _index_add(book: Notebook, out: View, a: Tensor, dim: int, index: Tensor, source: Tensor, alpha: int = 1) -> None:
    if not a.dim() or index.dim() != 1 or alpha != 1:
        raise Unsupported
    _index_put(book, out, a, [None] * (dim % a.dim()) + [index], source, accumulate=True)


@lowers("index", "_unsafe_index")
def _index(book: Notebook, out: View, a: Tensor, indices: Sequence[Tensor | None]) -> None:
    view = book.read(a, out.dtype)
    places, cells, extras = _indexed(book, view, indices, out.shape)
    book.emit(opcode("GATHER", out.dtype), out, places, cells, extras=extras)


@lowers("index_put", "_index_put_impl", "_unsafe_index_put")
def _index_put(
    book: Notebook, out: View, a: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False,
    _unsafe: bool = False,
) -> None:  # fmt: skip
    op = opcode("SCATTER_ADD" if accumulate else "SCATTER", out.dtype)
    _start(book, out, a)
    shape = _indexed_shape(out.shape, indices)
    places, cells, extras = _indexed(book, out, indices, shape)
    book.emit(op, cells, places, book.read(values, out.dtype).expand(shape), extras=extras)


def _indexed(
    book: Notebook, view: View, indices: Sequence[Tensor | None], shape: Sequence[int]
) -> tuple[View, View, tuple[int, int]]:
    """Returns the index and the indexed operand, broadcast to the shape of the result, and the extras."""
    dims = [d for d, index in enumerate(indices) if index is not None]
    tensors = [index for index in indices if index is not None]
    if any(index.dtype != WIDE for index in tensors) or not tensors:
        raise Unsupported
    common = _common(tensors)
    at = _result_dim(dims)
    rest = [d for d in range(len(view.shape)) if d not in dims]
    strides = [view.strides[d] for d in rest]
    cells = reshaped(view, shape, strides[:at] + [0] * len(common) + strides[at:])
    if len(tensors) == 1:
        places, extras = book.read(tensors[0], WIDE), _extras(view, dims[0])
    else:
        places, extras = _combined(book, view, dims, tensors, common), (1, 2**62)
    spread = [0] * at + list(places.expand(common).strides) + [0] * (len(rest) - at)
    return reshaped(places, shape, spread), cells, extras


def _combined(book: Notebook, view: View, dims: list[int], tensors: list[Tensor], common: Sequence[int]) -> View:
    """Returns the distances, in elements, that several indices make together."""
    if any(stride < 0 for stride in view.strides):
        raise Unsupported
    places = book.scalar(0, WIDE)
    for dim, index in zip(dims, tensors, strict=True):
        further = book.temporary(common, WIDE)
        book.emit(Op.PLACE, further, places, book.read(index, WIDE), extras=_extras(view, dim))
        places = further
    return places


def _result_dim(dims: list[int]) -> int:
    """Returns the first dimension of the indices in the result: where they stood, if next to each other."""
    return dims[0] if dims == list(range(dims[0], dims[0] + len(dims))) else 0


def _indexed_shape(shape: Sequence[int], indices: Sequence[Tensor | None]) -> tuple[int, ...]:
    dims = [d for d, index in enumerate(indices) if index is not None]
    if not dims:
        raise Unsupported
    common = _common([index for index in indices if index is not None])
    rest = [size for d, size in enumerate(shape) if d not in dims]
    at = _result_dim(dims)
    return (*rest[:at], *common, *rest[at:])


def _common(indices: Sequence[Tensor]) -> tuple[int, ...]:
    """Returns the shape that indices are broadcast to."""
    return tuple(torch.broadcast_shapes(*(index.shape for index in indices)))  # type: ignore[no-untyped-call]
