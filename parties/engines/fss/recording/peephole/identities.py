"""Turns operations that change nothing into copies, which `copies` removes."""

from parties.engines.fss.recording.notes import instruction
from parties.engines.fss.recording.opcodes import SWAPPED, Op
from parties.engines.fss.recording.peephole.steps import Steps, number

_NEUTRAL = {Op.ADD_64: 0, Op.SUB_64: 0, Op.MUL_64: 1, Op.SHL_64: 0, Op.SHR_64: 0, Op.OR_64: 0, Op.XOR_64: 0}
"""The right operand that leaves the left one as it is."""


def replace_identities(steps: Steps) -> None:
    """Replaces sums with 0, products with 1, and shifts by 0."""
    for index, note in steps.instructions():
        neutral = _NEUTRAL.get(note.op)
        if neutral is None:
            continue
        out, a, b = note.operands
        if number(b) == neutral:
            steps.put(index, instruction(Op.COPY_64, (out, a)))
        elif note.op in SWAPPED and number(a) == neutral:
            steps.put(index, instruction(Op.COPY_64, (out, b)))
