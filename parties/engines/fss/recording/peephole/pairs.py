"""Fuses two operations into one instruction where nothing else reads the result of the first."""

from parties.engines.fss.recording.launches import MAX_RANK
from parties.engines.fss.recording.notes import Instruction, instruction
from parties.engines.fss.recording.opcodes import SWAPPED, Op
from parties.engines.fss.recording.peephole.shapes import common, sorted_by, split
from parties.engines.fss.recording.peephole.steps import Steps, elements, is_contiguous, number

_A, _B, _C = range(3)  # both operands of the first operation, and the other one of the second
PAIRS: dict[tuple[Op, Op, int], tuple[Op, tuple[int, ...]]] = {
    (Op.ADD_64, Op.CHECKED_SHIFT, 1): (Op.CHECKED_SHIFT, (_A, _B)),  # in place of 0
    (Op.MUL_64, Op.TOTAL_64, 1): (Op.MUL_TOTAL_64, (_A, _B)),
    (Op.MUL_64, Op.SUB_64, 1): (Op.MUL_SUB_64, (_A, _B, _C)),
    (Op.MUL_64, Op.ADD_64, 1): (Op.MUL_ADD_64, (_A, _B, _C)),
    (Op.SHR_64, Op.AND_64, 1): (Op.SHR_AND_64, (_A, _B, _C)),
    (Op.SUB_64, Op.ADD_64, 1): (Op.SUB_ADD_64, (_A, _B, _C)),
    (Op.SUB_64, Op.SUB_64, 2): (Op.SUB_ADD_64, (_C, _A, _B)),  # c - (a - b)
    (Op.ADD_64, Op.SUB_64, 1): (Op.SUB_ADD_64, (_A, _C, _B)),  # (a + b) - c
    (Op.SUB_64, Op.MUL_64, 1): (Op.SUB_MUL_64, (_A, _B, _C)),
    (Op.ADD_64, Op.ADD_64, 1): (Op.ADD_ADD_64, (_A, _B, _C)),
}
"""The operation that stands for two: by the first, the second, and the operand of the second that is the result of the
first, or the operand next to it if they commute; with the order of its operands. Of two pairs that an instruction could
be part of, the earlier one is taken."""


def fuse_pairs(steps: Steps) -> None:
    """Fuses pairs, in the place of the second operation."""
    for index, second in steps.instructions():
        for (first_op, second_op, place), (op, order) in PAIRS.items():
            places = (1, 2) if second_op in SWAPPED else (place,)
            if second.op is second_op and any(_fuse(steps, index, first_op, at, op, order) for at in places):
                break


def _fuse(steps: Steps, index: int, first_op: Op, place: int, op: Op, order: tuple[int, ...]) -> bool:
    second = steps.instruction(index)
    assert second is not None  # noqa: S101 - the caller has it from there
    buffer = second.operands[place].buffer
    if not steps.is_temporary(buffer) or steps.reads[buffer].total() != 1 or steps.writes[buffer].total() != 1:
        return False
    (at,) = steps.writes[buffer]
    first = steps.instruction(at)
    if first is None or first.op is not first_op or not steps.in_one_tape(at, index):
        return False
    if second.op is Op.CHECKED_SHIFT and number(second.operands[3 - place]) != 0:
        return False
    operands = first.operands[1:]
    if any(view.buffer is second.operands[0].buffer for view in operands):
        return False
    if not all(steps.is_stable(view.buffer, at, index) for view in operands):
        return False
    fused = _fused(first, second, place, op, order)
    if fused is None or len(fused.shape) > max(MAX_RANK, len(first.shape), len(second.shape)):  # a GPU takes no more
        return False
    steps.put(at, None)
    steps.put(index, fused)
    return True


def _fused(first: Instruction, second: Instruction, place: int, op: Op, order: tuple[int, ...]) -> Instruction | None:
    """Returns the one instruction, or None if the second does not take the elements as the first makes them."""
    first, second = sorted_by(first, 0), sorted_by(second, place)
    made, taken = first.operands[0], second.operands[place]
    shape = common(first.shape, second.shape) if elements(made) == elements(taken) else None
    if shape is None or made.offset != taken.offset or not (is_contiguous(made) and is_contiguous(taken)):
        return None
    halves = [[split(view, shape) for view in note.operands] for note in (first, second)]
    sources = [*halves[0][1:], *(view for number, view in enumerate(halves[1]) if number not in (0, place))]
    operands = [halves[1][0], *(sources[number] for number in order), *halves[1][3:]]
    return instruction(op, operands, second.extras)
