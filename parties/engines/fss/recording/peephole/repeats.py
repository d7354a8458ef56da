"""Computes equal expressions once."""

from collections.abc import Hashable

from parties.engines.fss.recording.opcodes import ELEMENTWISE
from parties.engines.fss.recording.peephole.steps import Steps


def remove_repeats(steps: Steps) -> None:
    """Lets readers of a result read the same result of an earlier instruction instead."""
    known: dict[Hashable, int] = {}
    for index, note in steps.instructions():
        out, *operands = note.operands
        if note.op not in ELEMENTWISE or not steps.is_written_once(out):
            continue
        key = (note.op, note.extras, out.dtype, out.strides, tuple(operands))
        first = known.setdefault(key, index)
        earlier = steps.instruction(first)
        if earlier is None or not all(steps.is_stable(operand.buffer, first, index) for operand in operands):
            known[key] = index
        elif first != index and steps.is_temporary(out.buffer):
            steps.put(index, None)
            steps.rename(out.buffer, earlier.operands[0].buffer)
