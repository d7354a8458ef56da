"""The parts of a recorded segment: all that a replay calls, bound to memory, stage by stage."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from parties.engines.fss.randomness.source import Condition
from parties.engines.fss.recording.tape import WRONG_INDEX, Tape
from parties.engines.fss.replay.recorder import Round
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


def replay(parts: Sequence[Part], meter: StageMeter, failures: Sequence[Condition]) -> None:
    """Runs a segment. It enters no stage but moves the innermost one with marks, and leaves it as it was.

    Args:
        parts: The parts; the stage of the first is the innermost one.
        meter: The party's stage meter.
        failures: Makes the exception of each check.

    Raises:
        TruncationFailure: A check failed.
    """
    marks, clock = meter.marks, meter.clock
    try:
        for part in parts:
            if part.stage is not None:
                marks += ((clock(), part.stage, "", 0),)
            for step in part.steps:
                if step():
                    raise IndexError(WRONG_INDEX)
            if part.failed != part.passed:
                raise failures[part.checks + bytes(part.failed).index(1)]()
    finally:
        marks += ((clock(), parts[0].stage, "", 0),)
