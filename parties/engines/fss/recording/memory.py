"""Memory of a recording: what its tensors are views of, and where that lies during a replay."""

from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

ALIGNMENT = 64
CPU = torch.device("cpu")


class Kind(Enum):
    """Where the content of a buffer comes from."""

    EXTERNAL = "existed before, or was made outside the trace"
    CONSTANT = "made from Python data or other constants"
    PLANNED = "computed by the tapes"


@dataclass(eq=False)
class Buffer:
    """A storage.

    Attributes:
        kind: Where its content comes from.
        size: Bytes.
        storage: The memory, for externals and constants.
        offset: Place within the memory of the recording, for planned buffers.
        kept: A planned buffer that stays readable after the last tape.
    """

    kind: Kind
    size: int
    storage: torch.UntypedStorage | None = None
    offset: int = 0
    kept: bool = False

    @property
    def memory(self) -> torch.UntypedStorage:
        """The memory of an external or a constant."""
        assert self.storage is not None  # noqa: S101 - planned buffers have no memory of their own
        return self.storage

    @property
    def fixed(self) -> int:
        """Address of an external or a constant."""
        return self.memory.data_ptr()


@dataclass(frozen=True)
class View:
    """A strided view of a buffer; `offset` is in bytes, `strides` are in elements."""

    buffer: Buffer
    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def expand(self, shape: Sequence[int]) -> "View":
        """Broadcasts as torch does."""
        missing = len(shape) - len(self.shape)
        strides = [0] * missing + [
            0 if own == 1 else stride for own, stride in zip(self.shape, self.strides, strict=True)
        ]
        return View(self.buffer, self.offset, self.dtype, tuple(shape), tuple(strides))

    def select(self, dim: int, start: int, length: int) -> "View":
        """Returns elements start .. start + length - 1 of a dimension."""
        shape = (*self.shape[:dim], length, *self.shape[dim + 1 :])
        offset = self.offset + start * self.strides[dim] * self.dtype.itemsize
        return View(self.buffer, offset, self.dtype, shape, self.strides)

    def tensor(self, storage: torch.UntypedStorage, start: int = 0) -> Tensor:
        """Returns the view over memory that begins at byte `start` of a storage."""
        empty = torch.empty(0, dtype=self.dtype, device=storage.device)
        return empty.set_(storage, (start + self.offset) // self.dtype.itemsize, self.shape, self.strides)


class Arena:
    """Memory for intermediate results, which recordings that run one after the other may share."""

    def __init__(self, device: torch.device = CPU) -> None:
        self.memory = torch.empty(0, dtype=torch.uint8, device=device)

    def reserve(self, size: int) -> None:
        """Grows to at least `size` bytes. Tapes bind to the new memory when they run next; graphs keep the old one."""
        if self.memory.numel() < size:
            self.memory = torch.empty(size, dtype=torch.uint8, device=self.memory.device)


@dataclass
class Storages:
    """The buffers of the storages that a trace meets. A weak reference keeps a storage's identity from being reused."""

    _known: dict[int, tuple[StorageWeakRef, Buffer]] = field(default_factory=dict)

    def known(self, tensor: Tensor) -> bool:
        """Tells whether the tensor's storage was met before."""
        return self._buffer(tensor) is not None

    def enter(self, tensor: Tensor, kind: Kind) -> Buffer:
        """Registers the tensor's storage, again if its content changes its kind."""
        storage = tensor.untyped_storage()
        buffer = Buffer(kind, storage.nbytes(), storage if kind is Kind.EXTERNAL else None)
        self._known[_identity(storage)] = (StorageWeakRef(storage), buffer)  # type: ignore[no-untyped-call]
        return buffer

    def buffer(self, tensor: Tensor) -> Buffer:
        """Returns the buffer of the tensor's storage.

        An unknown storage is an external. One of floating-point numbers is a constant: what a program computes on is
        integers, and real numbers are its public parameters.
        """
        if (known := self._buffer(tensor)) is not None:
            return known
        return self.enter(tensor, Kind.CONSTANT if tensor.is_floating_point() else Kind.EXTERNAL)

    def view(self, tensor: Tensor) -> View:
        """Returns the tensor as a view of its buffer; see `buffer`."""
        buffer = self.buffer(tensor)
        if buffer.kind is Kind.CONSTANT and buffer.storage is None:
            buffer.storage = tensor.untyped_storage()
        offset = int(tensor.storage_offset()) * tensor.dtype.itemsize
        return View(buffer, offset, tensor.dtype, tuple(tensor.shape), tensor.stride())

    def constant(self, tensors: Iterable[Tensor]) -> bool:
        """Tells whether all tensors are constants."""
        buffers = [self._buffer(tensor) for tensor in tensors]
        return all(buffer is not None and buffer.kind is Kind.CONSTANT for buffer in buffers)

    def _buffer(self, tensor: Tensor) -> Buffer | None:
        entry = self._known.get(_identity(tensor.untyped_storage()))
        return entry[1] if entry else None


def _identity(storage: torch.UntypedStorage) -> int:
    identity: int = storage._cdata  # noqa: SLF001 - torch has no public name for it
    return identity


def plan(uses: Sequence[Sequence[Buffer]]) -> int:
    """Places the planned buffers that are not kept, so that those in use at the same time do not overlap.

    Args:
        uses: The buffers that each step reads or writes.

    Returns:
        The bytes that the places need.
    """
    last: dict[Buffer, int] = {}
    for step, buffers in enumerate(uses):
        last.update((buffer, step) for buffer in buffers if buffer.kind is Kind.PLANNED and not buffer.kept)
    free, placed, top = _Free(), set[Buffer](), 0
    for step, buffers in enumerate(uses):
        mine = dict.fromkeys(buffer for buffer in buffers if buffer in last)
        for buffer in mine:
            if buffer not in placed:
                placed.add(buffer)
                size = aligned(buffer.size)
                found = free.take(size)
                buffer.offset, top = (top, top + size) if found is None else (found, top)
        for buffer in mine:
            if last[buffer] == step:
                free.give(buffer.offset, aligned(buffer.size))
    return top


def aligned(size: int) -> int:
    """Rounds up to the alignment."""
    return -(-max(size, 1) // ALIGNMENT) * ALIGNMENT


class _Free:
    """Free ranges of bytes, sorted by their start."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []

    def take(self, size: int) -> int | None:
        """Takes the start of the smallest range that is large enough."""
        fitting = [(length, start) for start, length in self._ranges if length >= size]
        if not fitting:
            return None
        length, start = min(fitting)
        self._ranges.remove((start, length))
        if length > size:
            insort(self._ranges, (start + size, length - size))
        return start

    def give(self, start: int, length: int) -> None:
        """Returns a range and joins it with its neighbours."""
        insort(self._ranges, (start, length))
        joined: list[tuple[int, int]] = []
        for begin, size in self._ranges:
            if joined and sum(joined[-1]) == begin:
                joined[-1] = (joined[-1][0], joined[-1][1] + size)
            else:
                joined.append((begin, size))
        self._ranges = joined


def tensors_in(value: Any) -> list[Tensor]:
    """Lists the tensors in nested lists, tuples and dictionaries."""
    found: list[Tensor] = []
    _gather(value, found)
    return found


def _gather(value: Any, found: list[Tensor]) -> None:
    if isinstance(value, (list, tuple)):
        for item in value:
            _gather(item, found)
    elif isinstance(value, dict):
        for item in value.values():
            _gather(item, found)
    elif isinstance(value, Tensor):
        found.append(value)


def mapped(value: Any, kind: type, function: Any) -> Any:
    """Applies a function to all objects of a type in nested lists, tuples and dictionaries."""
    if isinstance(value, kind):
        return function(value)
    if isinstance(value, dict):
        return {key: mapped(item, kind, function) for key, item in value.items()}
    return type(value)(mapped(item, kind, function) for item in value) if type(value) in (list, tuple) else value
