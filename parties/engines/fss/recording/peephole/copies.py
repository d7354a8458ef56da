"""Removes copies: readers read what was copied, or the first writer writes where it goes."""

from dataclasses import replace

from parties.engines.fss.recording.memory import Kind, View
from parties.engines.fss.recording.notes import Instruction, instruction
from parties.engines.fss.recording.opcodes import ELEMENTWISE, REDUCTIONS, Op
from parties.engines.fss.recording.peephole.shapes import reshaped
from parties.engines.fss.recording.peephole.steps import Steps, elements, is_contiguous, is_whole

_COPIES = (Op.COPY_64, Op.COPY_8)


def remove_copies(steps: Steps) -> None:
    """Removes copies that are not needed."""
    for index, note in steps.instructions():
        if note.op in _COPIES and not (_read_source(steps, index, note) or _merge(steps, index, note)):
            _write_target(steps, index, note)


def _read_source(steps: Steps, index: int, copy: Instruction) -> bool:
    """Lets the readers of a copy read what was copied; an external, which may be memory of the host, is read once."""
    out, source = copy.operands
    if not steps.is_temporary(out.buffer) or not steps.is_written_once(out):
        return False
    readers = steps.reads[out.buffer]
    if source.buffer.kind is Kind.EXTERNAL and readers.total() > 1:
        return False
    changed: dict[int, Instruction] = {}
    for reader in readers:
        note = steps.instruction(reader)
        if note is None or note.op not in ELEMENTWISE | REDUCTIONS or not steps.is_stable(source.buffer, index, reader):
            return False
        seen = {view: _seen(view, copy) for view in note.operands if view.buffer is out.buffer}
        if note.operands[0].buffer is source.buffer or None in seen.values():
            return False
        operands = [seen.get(view) or view for view in note.operands]
        changed[reader] = instruction(note.op, operands, note.extras)
    for reader, note in changed.items():
        steps.put(reader, note)
    steps.put(index, None)
    return True


def _seen(view: View, copy: Instruction) -> View | None:
    """Returns the elements of the source that a view of a copy shows, or None if they are no view."""
    out, source = copy.operands
    if (view.shape, view.strides, view.offset) == (out.shape, out.strides, out.offset):
        return replace(source, dtype=view.dtype)
    if len(out.shape) > 1:
        return None
    (step,) = source.strides
    offset = source.offset + (view.offset - out.offset) * step
    return View(source.buffer, offset, view.dtype, view.shape, tuple(stride * step for stride in view.strides))


def _merge(steps: Steps, index: int, copy: Instruction) -> bool:
    """Makes a temporary, which is not written later, and the whole copy of it one buffer."""
    out, source = copy.operands
    alike = is_whole(source) and steps.is_written_once(out) and out.buffer.size == source.buffer.size
    if not alike or not steps.is_temporary(source.buffer) or max(steps.writes[source.buffer], default=0) > index:
        return False
    steps.put(index, None)
    steps.rename(source.buffer, out.buffer)
    return True


def _write_target(steps: Steps, index: int, copy: Instruction) -> bool:
    """Lets the instruction that makes a temporary write it where it is copied to, if nothing else reads it."""
    out, source = copy.operands
    buffer = source.buffer
    if not steps.is_temporary(buffer) or steps.reads[buffer].total() != 1 or steps.writes[buffer].total() != 1:
        return False
    (first,) = steps.writes[buffer]
    note = steps.instruction(first)
    if note is None or note.op not in ELEMENTWISE or not steps.in_one_tape(first, index):
        return False
    made = note.operands[0]
    if not is_contiguous(source) or (made.offset, elements(made)) != (source.offset, elements(source)):
        return False
    if not steps.is_unused(out.buffer, first, index) or any(view.buffer is out.buffer for view in note.operands):
        return False
    split = reshaped(note, copy.shape)
    if split is None or split.shape != copy.shape:
        return False
    steps.put(index, None)
    steps.put(first, instruction(note.op, (out, *split.operands[1:]), note.extras))
    return True
