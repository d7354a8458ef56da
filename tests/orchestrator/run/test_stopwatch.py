"""A step of the clock does not affect recorded durations."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.run import stopwatch
from orchestrator.run.stopwatch import Stopwatch


class SteppedClock(datetime):
    """A clock that may be set."""

    step = timedelta(0)

    @classmethod
    def now(cls, tz: object = None) -> Any:  # noqa: ARG003 - as its base has it
        return datetime.now(UTC) + cls.step


@pytest.mark.parametrize("step", [timedelta(days=-400), timedelta(hours=-1), timedelta(days=400)])
def test_a_clock_that_is_set_while_it_runs_changes_no_duration(
    step: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopwatch, "datetime", SteppedClock)
    before, began = datetime.now(UTC), time.monotonic()
    watch = Stopwatch()
    monkeypatch.setattr(SteppedClock, "step", step)
    started, finished = watch.read()
    assert timedelta(0) <= finished - started <= timedelta(seconds=time.monotonic() - began)
    assert before <= started <= datetime.now(UTC)
