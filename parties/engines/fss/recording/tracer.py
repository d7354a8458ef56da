"""Notes the torch operations of a program while it runs, and the kernels that it calls."""

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from parties.engines.fss.kernels.call import call_untraced, traced_by
from parties.engines.fss.recording.lowering import KERNELS, LOWERINGS
from parties.engines.fss.recording.memory import Arena, Kind, Storages, View, mapped, tensors_in
from parties.engines.fss.recording.notes import Call, Note, Notebook, Unsupported
from parties.engines.fss.recording.peephole import shortened
from parties.engines.fss.recording.tape import Recording
from parties.engines.fss.recording.trace import Trace

_EMPTY = {"empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "empty_permuted"}
_FILLED = {"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"}
_TO_PYTHON = {"numpy", "tolist", "__array__", "__dlpack__"}
_SEVERAL_OUTPUTS = {"aminmax"}


class NotRecordable(Exception):  # noqa: N818 - named for what it says
    """The program handed data that a replay would compute to Python.

    Attributes:
        operation: Name of the operation.
    """

    def __init__(self, operation: str, why: str) -> None:
        super().__init__(f"{operation} cannot be recorded: {why}")
        self.operation = operation


class _Active(threading.local):
    tracers: "tuple[Tracer, ...]" = ()


_active = _Active()


class Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs torch operations as usual and notes them, as tapes that do the same without the program.

    Tensors that existed before, and those made while `paused`, are read and written where they are. Tensors made from
    Python data, floating-point ones that existed before, and what is computed from nothing else, are constants. All
    other tensors get a place in the memory of the recording.

    Not thread-safe: a tracer notes the operations of the thread that entered it.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._storages = Storages()
        self._book = Notebook(self._storages)
        self._tapes: list[list[Note]] = []
        self.is_paused = False
        self._functions = _ToPython(weakref.proxy(self))  # no cycle: a tracer keeps the storages that it met alive

    def __enter__(self) -> "Tracer":
        super().__enter__()  # type: ignore[no-untyped-call]
        self._functions.__enter__()  # type: ignore[no-untyped-call]
        _active.tracers = (*_active.tracers, self)
        self._calls = traced_by(self)
        self._calls.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _active.tracers = _active.tracers[:-1]
        self._calls.__exit__(kind, error, trace)
        self._functions.__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Notes nothing meanwhile. Tensors that are made here count as made before the trace."""
        before, self.is_paused = self.is_paused, True
        try:
            yield
        finally:
            self.is_paused = before

    @property
    def has_notes(self) -> bool:
        """Whether anything was noted since the last cut."""
        return bool(self._book.notes)

    def cut(self) -> int:
        """Ends a tape, of all that was noted since the last cut; returns its number."""
        self._tapes.append(self._book.notes)
        self._book.notes = []
        return len(self._tapes) - 1

    def finish(
        self, keep: Sequence[Tensor] = (), arena: Arena | None = None, make: Callable[..., Any] = Recording
    ) -> Any:
        """Plans the memory of the tapes. What was noted after the last cut is one more tape.

        Args:
            keep: Tensors that stay readable after the last tape.
            arena: Memory for all others, shared with recordings that never run at the same time; own memory if None.
            make: What makes the recording, a `Recording` or one for another device.
        """
        return self.end(keep).recording(keep, arena, make)

    def end(self, keep: Sequence[Tensor]) -> Trace:
        """Returns all that was noted; `keep` as for `finish`."""
        if self._book.notes:
            self.cut()
        with self.paused():
            views = [self._storages.view(tensor) for tensor in keep]
            return Trace(shortened(self._tapes, [view.buffer for view in views]), views)

    def __torch_dispatch__(
        self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.is_paused:
            return func(*args, **kwargs)
        with self.paused():
            return self._traced(func, args, kwargs)

    def constant(self, tensor: Tensor) -> bool:
        """Tells whether the content of a tensor is the same in each replay."""
        return self._storages.buffer(tensor).kind is Kind.CONSTANT

    def call(self, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """Calls a kernel, and notes the call; see `kernels.call`. All of its tensors may be written."""
        if self.is_paused:
            call_untraced(function, arguments)
            return
        with self.paused():
            for tensor in tensors_in(arguments):
                self._writable(tensor)
            noted = mapped(arguments, Tensor, self._storages.view)
            call_untraced(function, arguments)
            if function in KERNELS:
                KERNELS[function](self._book, *noted)
            else:
                self._book.notes.append(Call(function, noted, {}, kernel=True))

    def _traced(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name, tensors = _packet(func), tensors_in([args, kwargs])
        if name == "lift_fresh":
            if not self._storages.known(args[0]):
                self._storages.enter(args[0], Kind.CONSTANT)
            return func(*args, **kwargs)
        if any(tensor.is_meta for tensor in tensors):
            return func(*args, **kwargs)
        written = _written(func, args, kwargs)
        for tensor in written:
            self._writable(tensor)
        buffers = [self._storages.buffer(tensor) for tensor in tensors]
        known = not written and all(buffer.kind is Kind.CONSTANT for buffer in buffers)
        self._check(func, name, args, known=known)
        result = func(*args, **kwargs)
        outputs = tensors_in(result)
        if any(tensor.is_meta for tensor in outputs):
            return result
        if written:
            self._note(func, name, args, kwargs, written)
            return result
        fresh = [tensor for tensor in outputs if not self._storages.known(tensor)]
        made = known or name in _FILLED
        for tensor in fresh:
            self._storages.enter(tensor, Kind.CONSTANT if made and name not in _EMPTY else Kind.PLANNED)
        if fresh and not made and name not in _EMPTY:
            self._note(func, name, args, kwargs, outputs)
        elif not outputs and not known:
            raise NotRecordable(str(func), "it hands the content of a tensor to Python")
        return result

    def _check(self, func: Any, name: str, args: tuple[Any, ...], *, known: bool) -> None:
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise NotRecordable(str(func), "it draws random numbers")
        if known:
            return
        if torch.Tag.data_dependent_output in func.tags:
            raise NotRecordable(str(func), "it hands the content of a tensor to Python")
        if name == "index":
            masks = [index for index in tensors_in(args[1:]) if index.dtype in (torch.bool, torch.uint8)]
            changing = not self._storages.constant(masks)
        else:
            changing = torch.Tag.dynamic_output_shape in func.tags
        if changing:
            raise NotRecordable(str(func), "the shape of its result depends on the content of a tensor")

    def _note(
        self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Sequence[Tensor]
    ) -> None:
        views = [self._storages.view(tensor) for tensor in outputs]
        lowering = LOWERINGS.get(name)
        before = len(self._book.notes)
        if lowering is not None and (len(views) == 1 or name in _SEVERAL_OUTPUTS):
            named = {key: value for key, value in kwargs.items() if key not in _LAYOUT}
            try:
                lowering(self._book, views[0] if len(views) == 1 else views, *args, **named)
            except Unsupported:
                del self._book.notes[before:]
            else:
                return
        noted, named = mapped([args, kwargs], Tensor, self._storages.view)
        in_place = bool(_written(func, args, kwargs))
        self._book.notes.append(Call(func, noted, named, () if in_place else tuple(views)))

    def _writable(self, tensor: Tensor) -> None:
        """Lets a constant that is about to be written begin with its content in each replay."""
        view = self._storages.view(tensor)
        if view.buffer.kind is not Kind.CONSTANT:
            return
        storage = tensor.untyped_storage()
        view.buffer.storage = storage.clone()  # type: ignore[no-untyped-call]
        unit = torch.int64 if tensor.dtype == torch.int64 else torch.uint8
        content = torch.empty(0, dtype=unit, device=storage.device).set_(storage)
        start = self._book.uniform(content) or self._storages.view(content)
        buffer = self._storages.enter(tensor, Kind.PLANNED)
        self._book.convert(View(buffer, 0, content.dtype, tuple(content.shape), (1,)), start)


class _ToPython(TorchFunctionMode):
    """Refuses methods that hand data to Python without an aten operation."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self._tracer = tracer

    def __torch_function__(
        self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in _TO_PYTHON and not self._tracer.is_paused and not self._tracer.constant(args[0]):
            raise NotRecordable(f"Tensor.{name}", "it hands the content of a tensor to Python; see kernels.call")
        return func(*args, **(kwargs or {}))


@contextmanager
def untraced() -> Iterator[None]:
    """Lets no tracer of this thread note what happens meanwhile: for public constants, which each replay uses again."""
    tracers = [tracer for tracer in _active.tracers if not tracer.is_paused]
    for tracer in tracers:
        tracer.is_paused = True
    try:
        yield
    finally:
        for tracer in tracers:
            tracer.is_paused = False


_LAYOUT = {"layout", "device", "pin_memory", "memory_format", "non_blocking", "out"}


@cache
def _packet(func: Any) -> str:
    """Returns the name of an operation without overload and without the mark of an in-place form."""
    name: str = func.overloadpacket.__name__
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Lists the tensors that an operation writes in place."""
    values = [args[place] if place < len(args) else kwargs.get(name) for place, name in _written_arguments(func)]
    return tensors_in(values)


@cache
def _written_arguments(func: Any) -> list[tuple[int, str]]:
    """Lists place and name of the arguments that an operation writes in place."""
    arguments = enumerate(func._schema.arguments)  # noqa: SLF001 - as documented for dispatch modes
    return [(place, one.name) for place, one in arguments if one.alias_info is not None and one.alias_info.is_write]
