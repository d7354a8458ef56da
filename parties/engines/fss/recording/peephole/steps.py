"""The notes of all tapes of a trace as one list that passes rewrite, and where each buffer is read and written."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch

from parties.engines.fss.recording.memory import Buffer, Kind, View, mapped
from parties.engines.fss.recording.notes import Call, Instruction, Note
from parties.engines.fss.recording.opcodes import ACCUMULATING


class Steps:
    """Notes, in order; a pass replaces and removes them.

    Args:
        tapes: The notes of each tape.
        kept: Buffers that stay readable after the last tape.
    """

    def __init__(self, tapes: Sequence[Sequence[Note]], kept: Iterable[Buffer]) -> None:
        self._notes: list[Note | None] = [note for tape in tapes for note in tape]
        self._tape = [number for number, tape in enumerate(tapes) for _ in tape]
        self._count = len(tapes)
        self._kept = set(kept)
        self.reads: dict[Buffer, Counter[int]] = defaultdict(Counter)
        """How often each step reads a buffer."""
        self.writes: dict[Buffer, Counter[int]] = defaultdict(Counter)
        """How often each step writes it; what adds to a buffer does both."""
        for index, note in enumerate(self._notes):
            self._enter(index, note)

    def instructions(self) -> Iterator[tuple[int, Instruction]]:
        """Yields places and instructions as they are by then."""
        for index in range(len(self._notes)):
            note = self._notes[index]
            if isinstance(note, Instruction):
                yield index, note

    def instruction(self, index: int) -> Instruction | None:
        """Returns the instruction at a place, or None if there is none."""
        note = self._notes[index]
        return note if isinstance(note, Instruction) else None

    def put(self, index: int, note: Note | None) -> None:
        """Replaces a step, or removes it."""
        for used in (self.reads, self.writes):
            for buffer in self._buffers(self._notes[index]):
                del used[buffer][index]
        self._notes[index] = note
        self._enter(index, note)

    def rename(self, old: Buffer, new: Buffer) -> None:
        """Lets all steps use another buffer at the same places."""

        def renamed(view: View) -> View:
            return replace(view, buffer=new) if view.buffer is old else view

        for index in {*self.reads[old], *self.writes[old]}:
            note = self._notes[index]
            if isinstance(note, Instruction):
                self.put(index, replace(note, operands=tuple(map(renamed, note.operands))))
            elif note is not None:
                args, kwargs, outputs = mapped([note.args, note.kwargs, note.outputs], View, renamed)
                self.put(index, replace(note, args=args, kwargs=kwargs, outputs=outputs))

    def is_temporary(self, buffer: Buffer) -> bool:
        """Tells whether nothing but the steps uses the buffer."""
        return buffer.kind is Kind.PLANNED and buffer not in self._kept

    def is_written_once(self, view: View) -> bool:
        """Tells whether a planned buffer has no other content than what one instruction writes to the view of it."""
        buffer = view.buffer
        once = self.writes[buffer].total() == 1 and not self._adds(buffer)
        return buffer.kind is Kind.PLANNED and once and is_whole(view)

    def is_stable(self, buffer: Buffer, first: int, last: int) -> bool:
        """Tells whether a buffer holds at step `last` what it holds after step `first`; the host may write externals.

        A constant is written by no one.
        """
        if buffer.kind is Kind.EXTERNAL and self._tape[first] != self._tape[last]:
            return False
        return not any(first < index < last for index in self.writes[buffer])

    def is_unused(self, buffer: Buffer, first: int, last: int) -> bool:
        """Tells whether no step between the two uses a buffer, nor the host an external one."""
        return self.is_stable(buffer, first, last) and not any(first < index < last for index in self.reads[buffer])

    def in_one_tape(self, first: int, last: int) -> bool:
        """Tells whether two steps are of one tape."""
        return self._tape[first] == self._tape[last]

    def tapes(self) -> list[list[Note]]:
        """Returns what is left of each tape."""
        left: list[list[Note]] = [[] for _ in range(self._count)]
        for number, note in zip(self._tape, self._notes, strict=True):
            if note is not None:
                left[number].append(note)
        return left

    def _adds(self, buffer: Buffer) -> bool:
        return any(index in self.reads[buffer] for index in self.writes[buffer])

    def _enter(self, index: int, note: Note | None) -> None:
        if isinstance(note, Instruction):
            adds = note.op in ACCUMULATING
            for place, operand in enumerate(note.operands):
                if place in note.written:
                    self.writes[operand.buffer][index] += 1
                if place not in note.written or adds:
                    self.reads[operand.buffer][index] += 1
        elif isinstance(note, Call):
            outputs = {view.buffer for view in note.outputs}
            for buffer in note.buffers:
                if buffer in outputs or not outputs:
                    self.writes[buffer][index] += 1
                if buffer not in outputs:
                    self.reads[buffer][index] += 1

    @staticmethod
    def _buffers(note: Note | None) -> list[Buffer]:
        return [] if note is None else list(dict.fromkeys(note.buffers))


def number(view: View) -> int | None:
    """Returns the number of a broadcast constant on the host, or None if the view is no such constant."""
    held = view.buffer.storage
    if view.buffer.kind is not Kind.CONSTANT or any(view.strides) or held is None or held.device.type != "cpu":
        return None
    return int(torch.empty(0, dtype=view.dtype).set_(held, view.offset // view.dtype.itemsize, (1,), (1,)).item())


def elements(view: View) -> int:
    """Returns the number of elements of a view."""
    count = 1
    for size in view.shape:
        count *= size
    return count


def is_whole(view: View) -> bool:
    """Tells whether a view shows all of its buffer, in order."""
    return view.offset == 0 and is_contiguous(view) and elements(view) * view.dtype.itemsize == view.buffer.size


def is_contiguous(view: View) -> bool:
    """Tells whether the elements of a view lie one after the other, in the order of its dimensions."""
    step = 1
    for size, stride in zip(reversed(view.shape), reversed(view.strides), strict=True):
        if size != 1 and stride != step:
            return False
        step *= size
    return True
