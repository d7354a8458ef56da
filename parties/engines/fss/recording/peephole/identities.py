"""Turns operations that change nothing into copies, which `copies` removes."""

import torch

from parties.engines.fss.recording.memory import Kind, View
from parties.engines.fss.recording.notes import instruction
from parties.engines.fss.recording.opcodes import SWAPPED, Op
from parties.engines.fss.recording.peephole.steps import Steps

_NEUTRAL = {Op.ADD_64: 0, Op.SUB_64: 0, Op.MUL_64: 1, Op.SHL_64: 0, Op.SHR_64: 0, Op.OR_64: 0, Op.XOR_64: 0}
"""The right operand that leaves the left one as it is."""


def replace_identities(steps: Steps) -> None:
    """Replaces sums with 0, products with 1, and shifts by 0."""
    for index, note in steps.instructions():
        neutral = _NEUTRAL.get(note.op)
        if neutral is None:
            continue
        out, a, b = note.operands
        if _number(b) == neutral:
            steps.put(index, instruction(Op.COPY_64, (out, a)))
        elif note.op in SWAPPED and _number(a) == neutral:
            steps.put(index, instruction(Op.COPY_64, (out, b)))


def _number(view: View) -> int | None:
    """Returns the number of a broadcast constant on the host."""
    held = view.buffer.storage
    if view.buffer.kind is not Kind.CONSTANT or any(view.strides) or held is None or held.device.type != "cpu":
        return None
    return int(torch.empty(0, dtype=view.dtype).set_(held, view.offset // view.dtype.itemsize, (1,), (1,)).item())
