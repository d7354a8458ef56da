"""Removes instructions whose results nobody reads."""

from parties.engines.fss.recording.peephole.steps import Steps


def remove_unused(steps: Steps) -> None:
    """Removes what writes temporaries alone that are read by no other step."""
    for index, note in reversed(list(steps.instructions())):
        written = [note.operands[place].buffer for place in note.written]
        if all(steps.is_temporary(buffer) and set(steps.reads[buffer]) <= {index} for buffer in written):
            steps.put(index, None)
