"""Launches: the steps of a tape, grouped into kernels of a GPU (`cuda_source`).

A launch with one block of threads runs any instructions one after the other. A launch with several blocks runs
instructions that share written memory only element by element. A step goes into the earliest launch that comes after
all that it depends on, so that a stretch between two rounds takes few launches.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from parties.engines.fss.recording.memory import Buffer, View
from parties.engines.fss.recording.notes import Call, Instruction, Note, Unsupported
from parties.engines.fss.recording.opcodes import ORDERED, REDUCTIONS, Op

MAX_RANK = 4
BLOCK = 1024
"""Elements that are worth a program."""
ALONE = 2 * BLOCK
"""Most elements of an instruction that shares a program with others; more of them are worth several programs."""
MOST_INSTRUCTIONS = 16
"""Instructions of a launch: a kernel is given at most 4 kB, or 30 words for each."""
_SCATTERED = {Op.SCATTER_64, Op.SCATTER_8, Op.SCATTER_ADD_64}
_INDEXED = {Op.GATHER_64, Op.GATHER_8, *_SCATTERED}
_NAMES = {
    Op.WIDEN: "COPY", Op.NARROW: "COPY", Op.ANY_8: "LARGEST", Op.ALL_8: "SMALLEST",
    **{op: op.name for op in (Op.PLACE, Op.PACK, Op.UNPACK, Op.CHECKED_SHIFT)},
}  # fmt: skip
"""Names on a GPU; others are those of the opcodes without the width."""


@dataclass
class Launch:
    """Instructions of one launch, or one call.

    Attributes:
        notes: The steps.
        programs: Number of programs.
    """

    notes: list[Note] = field(default_factory=list)
    programs: int = 1

    @property
    def is_call(self) -> bool:
        """Whether it is a call."""
        return isinstance(self.notes[0], Call)

    @property
    def buffers(self) -> list[Buffer]:
        """All buffers that are read or written."""
        return [buffer for note in self.notes for buffer in note.buffers]

    def takes(self, note: Note, wanted: int) -> bool:
        """Tells whether an instruction of so many programs can be added to the launch."""
        if self.is_call or isinstance(note, Call) or len(self.notes) == MOST_INSTRUCTIONS:
            return False
        if self.programs == 1:
            return wanted == 1
        return Row.of(note).is_atomic and all(independent(before, note) for before in self.notes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Row:
    """An instruction as a GPU runs it.

    Attributes:
        name: Name of the operation; the width of operands is not part of it.
        elements: Elements; of a reduction, of its output; of packing, bytes; of cumulative sums, rows.
        extras: See `opcodes`; of a reduction, elements per output; of packing, bits; of cumulative sums, elements per
            row.
        shape: From the innermost dimension on.
        operands: The same operands with strides from the innermost dimension on.
    """

    name: str
    elements: int
    extras: tuple[int, int]
    shape: tuple[int, ...]
    operands: tuple[View, ...]

    @classmethod
    def of(cls, note: Instruction) -> "Row":
        """Converts an instruction.

        Raises:
            Unsupported: A GPU has no such instruction.
        """
        if len(note.shape) > MAX_RANK or math.prod(note.shape) >= 1 << 31:
            raise Unsupported
        name = _NAMES.get(note.op) or note.op.name.rpartition("_")[0]
        order, elements, extras = list(range(len(note.shape)))[::-1], math.prod(note.shape), note.extras
        if note.op in REDUCTIONS:
            across = [d for d in order if note.operands[0].strides[d] == 0]
            order = across + [d for d in order if d not in across]
            extras = (math.prod(note.shape[d] for d in across), 0)
            elements //= extras[0]
        elif note.op in ORDERED:
            extras = (note.shape[-1], 0)
            elements //= max(extras[0], 1)
        elif note.op is Op.PACK:
            extras, elements = (elements, 0), -(-elements // 8)
        operands = tuple(
            replace(view, shape=tuple(note.shape[d] for d in order), strides=tuple(view.strides[d] for d in order))
            for view in note.operands
        )
        return cls(name, elements, extras, tuple(note.shape[d] for d in order), operands)

    @property
    def blocks(self) -> int:
        """Blocks of elements that are computed."""
        if self.name in ("TOTAL", "MUL_TOTAL", "LARGEST", "SMALLEST", "CUMSUM"):
            return self.elements * -(-self.extras[0] // BLOCK)
        return -(-self.elements // BLOCK)

    @property
    def is_atomic(self) -> bool:
        """Whether several programs may run it."""
        return self.name != "CUMSUM" and (
            self.name not in ("LARGEST", "SMALLEST") or self.operands[0].dtype.itemsize == 8
        )


def launches(notes: Sequence[Note]) -> list[Launch]:
    """Groups the steps of a tape.

    Raises:
        Unsupported: The machine has no such instruction.
    """
    made: list[Launch] = []
    touched: dict[Buffer, int] = {}  # the last launch that reads or writes a buffer
    changed: dict[Buffer, int] = {}  # the last one that writes it
    for note in notes:
        programs = 1 if isinstance(note, Call) else _programs(note)
        writes = written(note)
        after = max((touched.get(b, -1) if b in writes else changed.get(b, -1) for b in note.buffers), default=-1)
        for number in range(max(after, 0), len(made)):
            if made[number].takes(note, programs):
                break
        else:
            number = len(made)
            made.append(Launch(programs=programs))
        made[number].notes.append(note)
        made[number].programs = max(made[number].programs, programs)
        for buffer in note.buffers:
            touched[buffer] = max(number, touched.get(buffer, -1))
        for buffer in writes:
            changed[buffer] = max(number, changed.get(buffer, -1))
    return made


def _programs(note: Instruction) -> int:
    row = Row.of(note)
    if row.blocks * BLOCK <= ALONE or not row.is_atomic:
        return 1
    return row.blocks


def written(note: Note) -> set[Buffer]:
    """Returns the buffers that a step writes; a kernel may write all of its tensors."""
    if isinstance(note, Instruction):
        return {note.operands[place].buffer for place in note.written}
    if note.outputs:
        return {view.buffer for view in note.outputs}
    return set(note.buffers)


def independent(before: Instruction, after: Instruction) -> bool:
    """Tells whether each program may run the second without waiting for the others to have run the first."""
    return all(
        _alike(before, place, after, where)
        for place, one in enumerate(before.operands)
        for where, other in enumerate(after.operands)
        if one.buffer is other.buffer and (place in before.written or where in after.written)
    )


def _alike(before: Instruction, place: int, after: Instruction, where: int) -> bool:
    """Tells whether both take the same elements of an operand at the same time, or no element in common."""
    if _anywhere(before, place) or _anywhere(after, where):
        return False
    one, other = before.operands[place], after.operands[where]
    if _apart(one, other):
        return True
    if before.shape != after.shape or {before.op, after.op} & {Op.PACK, Op.UNPACK, *REDUCTIONS}:
        return False
    if (Op.CHECKED_SHIFT, 3) in ((before.op, place), (after.op, where)):  # each program may set the flag
        return False
    return (one.offset, one.strides, one.dtype.itemsize) == (other.offset, other.strides, other.dtype.itemsize)


def _anywhere(note: Instruction, place: int) -> bool:
    """Tells whether the view of an operand does not show which elements are used."""
    if note.op in _INDEXED:
        return place == (0 if note.op in _SCATTERED else 2)
    return (note.op, place) in ((Op.PACK, 0), (Op.UNPACK, 1))


def _apart(one: View, other: View) -> bool:
    """Tells whether two views of plain operands have no byte in common, by their first and last ones."""
    (start, stop), (first, last) = _range(one), _range(other)
    return stop <= first or last <= start


def _range(view: View) -> tuple[int, int]:
    steps = [stride * (size - 1) * view.dtype.itemsize for size, stride in zip(view.shape, view.strides, strict=True)]
    low, high = (sum(step for step in steps if (step < 0) == below) for below in (True, False))
    return view.offset + low, view.offset + high + view.dtype.itemsize
