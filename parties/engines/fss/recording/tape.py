"""Tapes: what a tracer noted, bound to memory and ready to run."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from parties.engines.fss.kernels.call import handed_over
from parties.engines.fss.recording.memory import Arena, Buffer, Kind, View, aligned, mapped, plan
from parties.engines.fss.recording.notes import Call, Instruction, Note
from parties.engines.fss.recording.opcodes import HEADER

Integers = NDArray[np.int64]
WRONG_INDEX = "an index of a recorded operation is outside its dimension"


class Recording:
    """The tapes of one trace, and their memory.

    Args:
        notes: The steps of each tape.
        keep: Tensors that stay readable, as views and as they were traced; None for one that was not.
        arena: Memory for the others; own memory if None.

    Attributes:
        tapes: One tape for each cut, to be run in this order.
        tensors: The kept tensors, over the memory of the recording; at first with the values of the trace.
    """

    def __init__(
        self, notes: Sequence[Sequence[Note]], keep: Sequence[tuple[View, Tensor | None]], arena: Arena | None
    ) -> None:
        self._shared = arena is not None
        self._arena = arena or Arena()
        steps = [note for tape in notes for note in tape]
        self._kept = torch.empty(place_kept([view.buffer for view, _ in keep]), dtype=torch.uint8)
        self._arena.reserve(plan([note.buffers for note in steps]))
        self.tensors = [readable(view, tensor, self._kept) for view, tensor in keep]
        numbers: dict[Buffer, int] = {}
        for note in steps:
            for buffer in note.buffers:
                numbers.setdefault(buffer, len(numbers))
        self._fixed = [buffer for buffer in numbers if buffer.kind is not Kind.PLANNED]
        self.tapes = [Tape(tape, self._kept, self._arena, numbers) for tape in notes]

    @property
    def memory_bytes(self) -> int:
        """Bytes that exist for this recording: kept tensors, own scratch memory, constants and programs."""
        constants = sum(buffer.size for buffer in self._fixed if buffer.kind is Kind.CONSTANT)
        own = 0 if self._shared else self._arena.memory.numel()
        return own + self._kept.numel() + constants + sum(tape.program_bytes for tape in self.tapes)


class Tape:
    """A part of a recording. It keeps alive what it reads and writes.

    Attributes:
        names: Names of its instructions and calls, in order.
        instructions: Number of its instructions.
        digests: Their hashes, with numbers of buffers in place of addresses.
        externals: The memory from outside that it reads or writes.
    """

    def __init__(self, notes: Sequence[Note], kept: Tensor, arena: Arena, numbers: dict[Buffer, int]) -> None:
        self.names = [note.name for note in notes]
        self.instructions = sum(isinstance(note, Instruction) for note in notes)
        self._kept, self._arena = kept, arena
        self.digests = [_digest(note, numbers) for note in notes]
        mine = dict.fromkeys(buffer for note in notes for buffer in note.buffers)
        self.externals = externals_of(mine)
        self._fixed = {buffer: buffer.memory for buffer in mine if buffer.kind is not Kind.PLANNED}
        self._program = _Program(kept)
        self._plan: list[tuple[int, int] | Call] = []
        for machine_runs, group in groupby(notes, lambda note: isinstance(note, Instruction)):
            if machine_runs:
                self._plan.append(self._program.extend(group))  # type: ignore[arg-type]
            else:
                self._plan += group  # type: ignore[arg-type]
        self._words = self._program.words()
        self._bound: Tensor | None = None
        self._steps: list[Callable[[], Any]] = []

    @property
    def calls(self) -> int:
        """Python calls of one run: runs of the machine, and calls of functions."""
        return len(self._plan)

    @property
    def program_bytes(self) -> int:
        """Size of the program for the machine."""
        return self._words.nbytes

    @property
    def steps(self) -> Sequence[Callable[[], Any]]:
        """Its calls, bound to memory, as long as the arena is the same; one returns true for an index that is wrong."""
        if self._bound is not self._arena.memory:
            self._bind()
        return self._steps

    def run(self) -> None:
        """Runs all steps.

        Raises:
            IndexError: An index is outside its dimension.
        """
        for step in self.steps:
            if step():
                raise IndexError(WRONG_INDEX)

    def difference(self, other: "Tape") -> str | None:
        """Names the first step in which another tape differs, or returns None.

        Compared are operations, shapes, strides, scalars, which buffers are used and where in them, and the content of
        constants. Externals are the same if they lie at the same address or have the same content now. A dependence
        that none of this shows is not found: a choice between functions of the same name, or Python code between tapes.
        """
        for step, (mine, theirs) in enumerate(zip(self.digests, other.digests, strict=False)):
            if mine != theirs:
                return f"step {step}: {self.names[step]}, {other.names[step]}"
        if len(self.names) != len(other.names):
            return f"{len(self.names)} steps, {len(other.names)} steps"
        for place, (own, its) in enumerate(zip(self.externals, other.externals, strict=True)):
            if own.data_ptr() != its.data_ptr() and not torch.equal(octets_of(own).cpu(), octets_of(its).cpu()):
                return f"external {place} of {own.nbytes()} bytes"
        return None

    def same_program(self, other: "Tape") -> bool:
        """Tells whether `difference` finds none."""
        return self.difference(other) is None

    def _bind(self) -> None:
        from parties.engines.fss.recording import machine  # importing compiles; see `warm_up`

        self._bound = self._arena.memory
        self._program.bind(self._words, self._bound.data_ptr())
        self._steps = [
            self._call(step) if isinstance(step, Call) else partial(machine.execute, self._words, *step)
            for step in self._plan
        ]

    def _call(self, call: Call) -> Callable[[], Any]:
        """Binds a call to tensors over the memory."""
        if call.kernel:
            arrays = mapped(call.args, View, lambda view: handed_over(self._tensor(view)))
            return partial(call.function, *arrays)
        args, kwargs = mapped([call.args, call.kwargs], View, self._tensor)
        outputs = [self._tensor(view) for view in call.outputs]
        return partial(copied_to, partial(call.function, *args, **kwargs), outputs)

    def _tensor(self, view: View) -> Tensor:
        buffer = view.buffer
        if buffer.kind is not Kind.PLANNED:
            return view.tensor(self._fixed[buffer])
        memory = self._kept if buffer.kept else self._arena.memory
        return view.tensor(memory.untyped_storage(), buffer.offset)


class _Program:
    """Instructions as words, and which of them are addresses in the arena."""

    def __init__(self, kept: Tensor) -> None:
        self._kept = kept.data_ptr()
        self._list: list[int] = []
        self._places: list[int] = []
        self._offsets: list[int] = []

    def extend(self, notes: Sequence[Instruction]) -> tuple[int, int]:
        """Adds instructions; returns the first word and the one after the last."""
        start = len(self._list)
        for note in notes:
            rank = len(note.shape)
            length = HEADER + rank + len(note.operands) * (rank + 1)
            self._list += [length, int(note.op), rank, len(note.operands), *note.extras, *note.shape]
            for operand in note.operands:
                self._list.append(self._address(operand))
                self._list += [stride * operand.dtype.itemsize for stride in operand.strides[:-1]]
                self._list.append(operand.strides[-1])
        return start, len(self._list)

    def words(self) -> Integers:
        """Returns the program, not yet bound to the arena."""
        words = np.array(self._list, dtype=np.int64)
        self._list = []
        self._where, self._relative = np.array(self._places, dtype=np.int64), np.array(self._offsets, dtype=np.int64)
        return words

    def bind(self, words: Integers, arena: int) -> None:
        """Writes the addresses in the arena."""
        words[self._where] = self._relative + arena

    def _address(self, operand: View) -> int:
        buffer = operand.buffer
        if buffer.kind is not Kind.PLANNED:
            return buffer.fixed + operand.offset
        if buffer.kept:
            return self._kept + buffer.offset + operand.offset
        self._places.append(len(self._list))
        self._offsets.append(buffer.offset + operand.offset)
        return 0


def copied_to(function: Callable[[], Any], outputs: Sequence[Tensor]) -> None:
    """Copies the results of a function to their places."""
    result = function()
    for output, computed in zip(outputs, (result,) if isinstance(result, Tensor) else result or (), strict=False):
        output.copy_(computed)


def readable(view: View, tensor: Tensor | None, kept: Tensor) -> Tensor:
    """Returns a kept tensor over memory for kept buffers, with the values of the trace; others stay where they are."""
    if view.buffer.kind is not Kind.PLANNED:
        return view.tensor(view.buffer.memory) if tensor is None else tensor
    start = view.buffer.offset
    if tensor is not None:
        kept[start : start + view.buffer.size] = octets_of(tensor.untyped_storage())
    return view.tensor(kept.untyped_storage(), start)


def externals_of(buffers: Iterable[Buffer]) -> list[torch.UntypedStorage]:
    """Returns the memory of the buffers that are from outside."""
    return [buffer.memory for buffer in buffers if buffer.kind is Kind.EXTERNAL]


def place_kept(buffers: Sequence[Buffer]) -> int:
    """Places the planned buffers that are kept, one after the other; returns the bytes they need."""
    size = 0
    for buffer in dict.fromkeys(buffers):
        if buffer.kind is Kind.PLANNED:
            buffer.kept, buffer.offset = True, size
            size += aligned(buffer.size)
    return size


def _digest(note: Note, numbers: dict[Buffer, int]) -> bytes:
    """Hashes a step, with the numbers of its buffers in place of their addresses."""

    def name(view: View) -> str:
        buffer, content = view.buffer, ""
        if buffer.kind is Kind.CONSTANT:
            content = xxhash.xxh3_128_hexdigest(octets_of(buffer.memory).cpu().numpy().tobytes())
        place = (numbers[buffer], buffer.kind.name, buffer.size, buffer.kept, content)
        return repr((place, view.offset, view.dtype, view.shape, view.strides))

    if isinstance(note, Instruction):
        parts: Any = [note.op.name, note.extras, [name(operand) for operand in note.operands]]
    else:
        parts = [note.name, mapped([note.args, note.kwargs, list(note.outputs)], View, name)]
    return xxhash.xxh3_128_digest(repr(parts).encode())


def octets_of(storage: torch.UntypedStorage) -> Tensor:
    """Returns the bytes of a storage, on its device."""
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
