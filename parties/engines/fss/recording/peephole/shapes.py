"""Instructions over other shapes of the same elements."""

from collections.abc import Sequence
from dataclasses import replace

from parties.engines.fss.recording.memory import View
from parties.engines.fss.recording.notes import Instruction


def reshaped(note: Instruction, shape: Sequence[int]) -> Instruction | None:
    """Returns an elementwise instruction with dimensions split so that those of `shape` could be merged from them."""
    splits = common(note.shape, shape)
    if splits is None:
        return None
    return replace(note, shape=splits, operands=tuple(split(view, splits) for view in note.operands))


def common(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...] | None:
    """Returns the shape with fewest dimensions that both shapes, of equally many elements, can be split into."""
    left, right, splits = list(one), list(other), list[int]()
    while left and right:
        size = min(left[-1], right[-1])
        if left[-1] % size or right[-1] % size:
            return None
        for rest in (left, right):
            rest[-1] //= size
            if rest[-1] == 1:
                rest.pop()
        if size != 1:
            splits.append(size)
    return tuple(reversed(splits)) or (1,)


def split(view: View, shape: Sequence[int]) -> View:
    """Splits dimensions of a view; `shape` is one that `common` found for the view's."""
    strides, left, step = list[int](), list(view.shape), 0
    sizes, steps = list(view.shape), list(view.strides)
    for size in reversed(shape):
        while left and left[-1] == 1:
            left.pop()
        at = len(left) - 1
        step = steps[at] * (sizes[at] // left[at]) if at >= 0 else 0
        strides.append(step)
        if at >= 0:
            left[at] //= size
    return replace(view, shape=tuple(shape), strides=tuple(reversed(strides)))


def sorted_by(note: Instruction, place: int) -> Instruction:
    """Returns an elementwise instruction or a reduction with dimensions in the order of the strides of an operand."""
    order = sorted(range(len(note.shape)), key=lambda d: -note.operands[place].strides[d])

    def turned(view: View) -> View:
        return replace(view, shape=shape, strides=tuple(view.strides[d] for d in order))

    shape = tuple(note.shape[d] for d in order)
    return replace(note, shape=shape, operands=tuple(map(turned, note.operands)))
