"""The steps of a tape as they are noted: instructions with symbolic addresses, and calls of Python functions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from parties.engines.fss.recording.memory import Buffer, Kind, Storages, View, mapped
from parties.engines.fss.recording.opcodes import MAX_RANK, ORDERED, SWAPPED, Op

SHORT = 16
"""A shorter innermost dimension gives way to a much longer one, whatever the strides."""


class Unsupported(Exception):  # noqa: N818 - a signal to the caller, who falls back
    """The operation has no instruction for these arguments."""


@dataclass(frozen=True)
class Instruction:
    """An instruction of the tape machine; `operands` have one shape."""

    op: Op
    shape: tuple[int, ...]
    operands: tuple[View, ...]
    extras: tuple[int, int]

    @property
    def name(self) -> str:
        """Name for messages."""
        return self.op.name.lower()

    @property
    def buffers(self) -> list[Buffer]:
        """The buffers that are read or written."""
        return [operand.buffer for operand in self.operands]

    @property
    def written(self) -> tuple[int, ...]:
        """The operands that are written: the first one, and the flag of a check."""
        return (0, 3) if self.op is Op.CHECKED_SHIFT else (0,)


@dataclass(frozen=True)
class Call:
    """A call of a Python function on tensors over the planned memory.

    Attributes:
        function: An aten operation, or a kernel.
        args: Its arguments, with views in place of tensors.
        kwargs: Likewise.
        outputs: Where the results go that the function returns.
        kernel: The function takes numpy arrays and returns nothing.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[View, ...] = ()
    kernel: bool = False

    @property
    def name(self) -> str:
        """Name for messages."""
        function = getattr(self.function, "py_func", self.function)
        return getattr(function, "__qualname__", None) or str(function)

    @property
    def views(self) -> list[View]:
        """All views, in a fixed order."""
        found: list[View] = []
        mapped([self.args, self.kwargs, list(self.outputs)], View, found.append)
        return found

    @property
    def buffers(self) -> list[Buffer]:
        """The buffers that are read or written."""
        return [view.buffer for view in self.views]


Note = Instruction | Call


class Notebook:
    """Notes the steps of the current tape.

    Args:
        storages: The buffers of the trace.
    """

    def __init__(self, storages: Storages) -> None:
        self.storages, self.notes = storages, list[Note]()
        self._scalars: dict[tuple[torch.dtype, int], Buffer] = {}

    def read(self, value: Tensor | float, dtype: torch.dtype) -> View:
        """Returns a tensor or a scalar as an operand of a dtype, converted if it has another one."""
        if not isinstance(value, Tensor):
            return self.scalar(value, dtype)
        view = self.uniform(value) or self.storages.view(value)
        if view.dtype == dtype or (view.dtype == torch.bool and dtype == torch.uint8):
            return view if view.dtype == dtype else replace(view, dtype=dtype)
        if 0 in view.strides:  # convert each element once
            narrow = tuple(1 if stride == 0 else size for size, stride in zip(view.shape, view.strides, strict=True))
            converted = self.temporary(narrow, dtype)
            self.convert(converted, replace(view, shape=narrow))
            return converted.expand(view.shape)
        converted = self.temporary(view.shape, dtype)
        self.convert(converted, view)
        return converted

    def uniform(self, tensor: Tensor) -> View | None:
        """Returns a constant of equal elements as a broadcast scalar."""
        view = self.storages.view(tensor)
        if view.buffer.kind is not Kind.CONSTANT or view.dtype not in (torch.int64, torch.uint8, torch.bool):
            return None
        if not tensor.numel():
            return None
        first = tensor.flatten()[0]
        if not bool((tensor == first).all()):
            return None
        return self.scalar(first.item(), view.dtype).expand(view.shape)

    def scalar(self, value: float, dtype: torch.dtype) -> View:
        """Returns a constant without dimensions."""
        if isinstance(value, float) and not value.is_integer():
            raise Unsupported
        number = int(value) & 255 if dtype == torch.uint8 else int(value)  # as integers of 8 bits wrap
        if (dtype, number) not in self._scalars:
            held = torch.full((1,), number, dtype=dtype).untyped_storage()
            self._scalars[dtype, number] = Buffer(Kind.CONSTANT, held.nbytes(), held)
        return View(self._scalars[dtype, number], 0, dtype, (), ())

    def temporary(self, shape: Sequence[int], dtype: torch.dtype) -> View:
        """Returns a new contiguous buffer."""
        count, strides = 1, []
        for size in reversed(shape):
            strides.append(count)
            count *= size
        return View(Buffer(Kind.PLANNED, count * dtype.itemsize), 0, dtype, tuple(shape), tuple(reversed(strides)))

    def convert(self, out: View, view: View) -> None:
        """Notes a copy with a conversion.

        Raises:
            Unsupported: One of the dtypes is none of int64, uint8 and bool.
        """
        wide, octets = torch.int64, (torch.uint8, torch.bool)
        if {out.dtype, view.dtype} - {wide, *octets}:
            if out.dtype != view.dtype or out.dtype.itemsize != 8:
                raise Unsupported
            self.emit(Op.COPY_64, out, view)
        elif out.dtype == torch.bool and view.dtype != torch.bool:
            op = Op.NE_64 if view.dtype == wide else Op.NE_8
            self.emit(op, out, view, self.scalar(0, view.dtype))
        elif out.dtype == wide:
            self.emit(Op.COPY_64 if view.dtype == wide else Op.WIDEN, out, view)
        else:
            self.emit(Op.NARROW if view.dtype == wide else Op.COPY_8, out, view)

    def emit(self, op: Op, out: View, *operands: View, extras: tuple[int, int] = (0, 0)) -> None:
        """Notes an instruction; operands are broadcast to the shape of the output.

        Raises:
            Unsupported: The instruction has too many dimensions.
        """
        if 0 in out.shape:
            return
        views = [out, *(view if view.shape == out.shape else view.expand(out.shape) for view in operands)]
        note = instruction(op, views, extras)
        if len(note.shape) > MAX_RANK:
            raise Unsupported
        self.notes.append(note)


def instruction(op: Op, operands: Sequence[View], extras: tuple[int, int] = (0, 0)) -> Instruction:
    """Returns an instruction on views of one shape, with dimensions as the machine likes them."""
    shape, strides = _collapsed(operands[0].shape, [view.strides for view in operands], ordered=op in ORDERED)
    views = [View(v.buffer, v.offset, v.dtype, shape, own) for v, own in zip(operands, strides, strict=True)]
    if op in SWAPPED and views[1].strides[-1] == 0:  # the loop with one broadcast operand has it on the right
        views[1], views[2] = views[2], views[1]
    return Instruction(op, shape, tuple(views), extras)


def _collapsed(
    shape: Sequence[int], strides: Sequence[Sequence[int]], *, ordered: bool
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Orders dimensions for the machine, with the one of short strides innermost, and merges those that are contiguous.

    Args:
        shape: Shape of all operands.
        strides: Strides of each operand; the first one is written.
        ordered: The last dimension stays the innermost one.
    """
    dims = [(size, tuple(own[d] for own in strides)) for d, size in enumerate(shape)]
    inner = dims[-1:] if ordered else []
    outer = [dim for dim in dims[: len(dims) - len(inner)] if dim[0] != 1]
    outer.sort(key=lambda dim: -2 * abs(dim[1][0]) - sum(abs(step) for step in dim[1][1:]))
    merged: list[tuple[int, tuple[int, ...]]] = []
    for size, steps in outer:
        if merged and merged[-1][1] == tuple(step * size for step in steps):
            merged[-1] = (merged[-1][0] * size, steps)
        else:
            merged.append((size, steps))
    if not inner and len(merged) > 1 and merged[-1][0] < SHORT:
        longest = max(merged, key=lambda dim: dim[0])
        if longest[0] > 4 * merged[-1][0]:
            merged.remove(longest)
            merged.append(longest)
    merged += inner
    if not merged:
        merged = [(1, (0,) * len(strides))]
    return tuple(size for size, _ in merged), [tuple(steps[k] for _, steps in merged) for k in range(len(strides))]
