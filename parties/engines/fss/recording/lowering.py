"""Instructions for aten operations, by the name of the operation without its overload.

A function here gets the notebook, the output as a view, and the arguments of the operation. In-place and `out=` forms
share the function of the plain one. What raises `Unsupported` is noted as a call.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from parties.engines.fss.kernels import loops
from parties.engines.fss.recording.memory import View
from parties.engines.fss.recording.notes import Notebook, Unsupported
from parties.engines.fss.recording.opcodes import Op

Lowering = Callable[..., None]
LOWERINGS: dict[str, Lowering] = {}
KERNELS: dict[Callable[..., None], Lowering] = {}
"""Instructions for kernels, by the function that `kernels.call` gets."""
WIDE, OCTET, BOOL = torch.int64, torch.uint8, torch.bool
_MODULAR = {"ADD", "SUB", "MUL", "AND", "OR", "XOR"}  # the low bits of the result depend on low bits alone
LEAST, GREATEST = -(2**63), 2**63 - 1


def lowers(*names: str) -> Callable[[Lowering], Lowering]:
    """Registers the function of one or more operations."""

    def register(function: Lowering) -> Lowering:
        LOWERINGS.update(dict.fromkeys(names, function))
        return function

    return register


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
        op = _op(name, out.dtype)
        book.emit(op, out, *(x if isinstance(x, View) else book.read(x, out.dtype) for x in (a, b)))

    return lower


def _op(name: str, dtype: torch.dtype) -> Op:
    width = {WIDE: 64, OCTET: 8, BOOL: 8}.get(dtype)
    try:
        return Op[f"{name}_{width}"]
    except KeyError:
        raise Unsupported from None


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
    book.emit(_op("MUL", out.dtype), scaled, view, book.scalar(alpha, out.dtype))
    return scaled


@lowers("neg")
def _neg(book: Notebook, out: View, a: Any) -> None:
    _sub(book, out, 0, a)


@lowers("abs")
def _abs(book: Notebook, out: View, a: Any) -> None:
    book.emit(_op("ABS", out.dtype), out, book.read(a, out.dtype))


@lowers("bitwise_not")
def _bitwise_not(book: Notebook, out: View, a: Any) -> None:
    ones = {WIDE: -1, OCTET: 255, BOOL: 1}
    book.emit(_op("XOR", out.dtype), out, book.read(a, out.dtype), book.scalar(ones[out.dtype], out.dtype))


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
        book.emit(_op(name, dtype), out, *((right, left) if swap else (left, right)))

    return lower


for _packet, _name, _swap in (
    ("eq", "EQ", False), ("ne", "NE", False), ("lt", "LT", False), ("le", "LE", False), ("gt", "LT", True),
    ("ge", "LE", True),
):  # fmt: skip
    lowers(_packet)(_comparison(_name, swap=_swap))


@lowers("clamp")
def _clamp(book: Notebook, out: View, a: Any, least: Any = None, greatest: Any = None) -> None:
    _op("MAX", out.dtype)
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
    book.emit(_op("WHERE", out.dtype), out, *views)


@lowers("masked_fill")
def _masked_fill(book: Notebook, out: View, a: Any, mask: Tensor, value: Any) -> None:
    _where(book, out, mask, value, a)


@lowers("clone", "_to_copy", "contiguous", "lift_fresh_copy")
def _clone(book: Notebook, out: View, a: Tensor, **_layout: Any) -> None:
    _copy(book, out, None, a)


@lowers("copy")
def _copy(book: Notebook, out: View, _old: Any, a: Any, _non_blocking: bool = False) -> None:
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
            _copy(book, out.select(dim, start, part.shape[dim]), None, part)
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
    _copy(book, inside, None, a)


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
        Op.COPY_64 if out.dtype.itemsize == 8 else _op("COPY", out.dtype),
        _as(out, shape, target),
        _as(view, shape, source),
    )


@lowers("flip")
def _flip(book: Notebook, out: View, a: Tensor, dims: Sequence[int]) -> None:
    view = book.read(a, out.dtype)
    strides, offset = list(view.strides), view.offset
    for dim in dims:
        offset += (view.shape[dim] - 1) * strides[dim] * view.dtype.itemsize
        strides[dim] = -strides[dim]
    turned = View(view.buffer, offset, view.dtype, view.shape, tuple(strides))
    book.emit(_op("COPY", out.dtype), out, turned)


def _reduction(name: str, start: int) -> Lowering:
    def lower(book: Notebook, out: View, a: Tensor, dim: Any = None, keepdim: bool = False, **dtype: Any) -> None:
        if dtype.get("dtype") not in (None, WIDE):
            raise Unsupported
        view = _numbers(book, out, a, name)
        book.convert(out, book.scalar(start, out.dtype).expand(out.shape))
        book.emit(_op(name, view.dtype), _across(out, view, dim, keepdim=keepdim), view)

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
    return _as(out, view.shape, strides)


def _as(view: View, shape: Sequence[int], strides: Sequence[int]) -> View:
    return View(view.buffer, view.offset, view.dtype, tuple(shape), tuple(strides))


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
        _as(own, [own.shape[d] for d in order] or [1], [own.strides[d] for d in order] or [0]) for own in (out, view)
    ]
    book.emit(_op("CUMSUM", view.dtype), *moved)


@lowers("gather")
def _gather(book: Notebook, out: View, a: Tensor, dim: int, index: Tensor, **_sparse: Any) -> None:
    view, places = book.read(a, out.dtype), book.read(index, WIDE)
    if not a.dim() or not out.shape:
        raise Unsupported
    dim %= a.dim()
    book.emit(_op("GATHER", out.dtype), out, places, _without(view, dim, out.shape), extras=_extras(view, dim))


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
    op = _op(name, out.dtype)
    dim %= a.dim()
    places = book.read(index, WIDE)
    _start(book, out, a)
    values = book.read(value, out.dtype)
    values = _as(values, places.shape, values.strides if values.shape else (0,) * len(places.shape))
    book.emit(op, _without(out, dim, places.shape), places, values, extras=_extras(out, dim))


def _start(book: Notebook, out: View, a: Tensor) -> None:
    """Copies the operand to the output, unless the operation is in place."""
    if book.storages.view(a) != out:
        _copy(book, out, None, a)


def _without(view: View, dim: int, shape: Sequence[int]) -> View:
    """Returns the view with another shape and stride 0 along a dimension, which an index steps along."""
    return _as(view, shape, [0 if d == dim else stride for d, stride in enumerate(view.strides)])


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
    book.emit(_op("GATHER", out.dtype), out, places, cells, extras=extras)


@lowers("index_put", "_index_put_impl", "_unsafe_index_put")
def _index_put(
    book: Notebook, out: View, a: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False,
    _unsafe: bool = False,
) -> None:  # fmt: skip
    op = _op("SCATTER_ADD" if accumulate else "SCATTER", out.dtype)
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
    cells = _as(view, shape, strides[:at] + [0] * len(common) + strides[at:])
    if len(tensors) == 1:
        places, extras = book.read(tensors[0], WIDE), _extras(view, dims[0])
    else:
        places, extras = _combined(book, view, dims, tensors, common), (1, 2**62)
    spread = [0] * at + list(places.expand(common).strides) + [0] * (len(rest) - at)
    return _as(places, shape, spread), cells, extras


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


def _pack(book: Notebook, bits: View, packed: View) -> None:
    book.emit(Op.PACK, _as(packed, bits.shape, (0,)), bits)


def _unpack(book: Notebook, packed: View, bits: View) -> None:
    book.emit(Op.UNPACK, bits, _as(packed, bits.shape, (0,)))


KERNELS.update({loops.pack_bits: _pack, loops.unpack_bits: _unpack})
