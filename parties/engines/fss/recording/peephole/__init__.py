"""Fewer instructions for the same results: passes over the notes of a trace, before its memory is planned."""

from collections.abc import Iterable, Sequence

from parties.engines.fss.recording.memory import Buffer
from parties.engines.fss.recording.notes import Note
from parties.engines.fss.recording.peephole.copies import remove_copies
from parties.engines.fss.recording.peephole.identities import replace_identities
from parties.engines.fss.recording.peephole.pairs import fuse_pairs
from parties.engines.fss.recording.peephole.repeats import remove_repeats
from parties.engines.fss.recording.peephole.steps import Steps
from parties.engines.fss.recording.peephole.unused import remove_unused

PASSES = (remove_unused, replace_identities, remove_copies, remove_repeats, fuse_pairs)


def shortened(tapes: Sequence[Sequence[Note]], kept: Iterable[Buffer]) -> list[list[Note]]:
    """Returns notes that leave the same in externals and kept buffers.

    Args:
        tapes: The notes of each tape.
        kept: Buffers that stay readable.
    """
    steps = Steps(tapes, kept)
    for improve in PASSES:
        improve(steps)
    return steps.tapes()
