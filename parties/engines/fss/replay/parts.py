"""The parts of a recorded segment: all that a replay calls, bound to memory, stage by stage."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from parties.engines.fss.randomness.source import Source
from parties.engines.fss.recording.tape import WRONG_INDEX, Tape
from parties.engines.fss.replay.inputs import Inputs
from parties.engines.fss.replay.recorder import Round, SegmentRecorder
from parties.metering.meter import StageMeter
from parties.metering.stage_stack import Stage

End = Callable[[Round], Callable[[], None] | None]
"""Binds what ends a part of a segment: an exchange; None for nothing."""


@dataclass(slots=True)
class Part:
    """Calls that follow each other.

    Attributes:
        stage: The stage to which they belong; None if it stays that of the part before.
        steps: The calls; one returns true for an index that is outside its dimension.
        failed: Results of the checks after them.
        passed: The results if none has failed.
        checks: Number of checks before these.
    """

    stage: Stage | None
    steps: list[Callable[[], Any]] = field(default_factory=list)
    failed: memoryview | bytes = b""
    passed: bytes = b""
    checks: int = 0


@dataclass
class Parts:
    """The parts of a recording, and what runs them.

    Attributes:
        recorder: Its rounds, and what was drawn and dealt.
        tapes: Its tapes, by number.
        stage: The stage of the first tape, to which what belongs to none is accounted.
    """

    recorder: SegmentRecorder
    tapes: Sequence[Tape]
    _ends: list[Callable[[], None] | None] = field(default_factory=list, init=False)
    _parts: list[Part] = field(default_factory=list, init=False)
    _bound_to: Tensor | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        ((self.stage, _), *_) = self.recorder.rounds[0].tapes

    def bind(self, source: Source, inputs: Inputs, end: End) -> None:
        """Binds what `run` calls, unless it is bound to the memory that recordings share by now."""
        if self._bound_to is inputs.arena.memory:
            return
        rounds, failed = self.recorder.rounds, inputs.failed_array.view(np.uint8).data
        self._ends = self._ends or [end(made) for made in rounds]
        self._parts = bound(rounds, self._ends, self.tapes, source.meter, failed)
        self._bound_to = inputs.arena.memory

    def run(self, source: Source, inputs: Inputs, end: End) -> None:
        """Runs all parts, in stage `stage` of the meter: moves it with marks, enters none, and leaves it as it was.

        Args:
            source: The party's randomness; the epoch of the attempt has begun.
            inputs: The shared memory of the recording, filled with its randomness.
            end: Binds what ends a part, always alike.

        Raises:
            TruncationFailure: A check failed.
        """
        inputs.failed_array[: len(self.recorder.failures)] = False  # a check may only set it
        source.retries.expected += self.recorder.risk
        self.bind(source, inputs, end)
        marks, clock = source.meter.marks, source.meter.clock
        try:
            for part in self._parts:
                if part.stage is not None:
                    marks += ((clock(), part.stage, "", 0),)
                for step in part.steps:
                    if step():
                        raise IndexError(WRONG_INDEX)
                if part.failed != part.passed:
                    raise self.recorder.failures[part.checks + bytes(part.failed).index(1)]()
        finally:
            inputs.drop_turn()
            marks += ((clock(), self._parts[0].stage, "", 0),)


def bound(
    rounds: Sequence[Round],
    ends: Sequence[Callable[[], None] | None],
    tapes: Sequence[Tape],
    meter: StageMeter,
    failed: memoryview,
) -> list[Part]:
    """Returns the parts of a segment.

    Args:
        rounds: Its rounds.
        ends: What ends each; see `End`.
        tapes: Its tapes, which stay as they are as long as the arena does.
        meter: The party's stage meter.
        failed: Results of all checks, as bytes.
    """
    parts: list[Part] = []
    stage, checks = "", 0

    def place(name: str) -> Part:
        nonlocal stage
        if name != stage or parts[-1].passed:
            parts.append(Part(meter.stage(name) if name != stage else None))
            stage = name
        return parts[-1]

    for made, end in zip(rounds, ends, strict=True):
        for name, number in made.tapes:
            place(name).steps += tapes[number].steps
        if made.checks > checks:
            part = parts[-1]
            part.failed, part.passed, part.checks = failed[checks : made.checks], bytes(made.checks - checks), checks
            checks = made.checks
        if end is not None:
            place(made.openings[0].stage if made.openings else stage).steps.append(end)
    return parts
