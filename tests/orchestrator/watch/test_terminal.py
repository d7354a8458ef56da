"""The live view: a table in a terminal, lines in a log."""

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from orchestrator.records.assemble import failed_record
from orchestrator.run.placement import ROLES
from orchestrator.watch.terminal import SweepProgress, duration, size, view
from parties.roles.reports import PartyProgress
from tests.helpers.fake_cells import fake_cell

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def progress(**changes: Any) -> dict[str, PartyProgress]:
    defaults: dict[str, Any] = {
        "state": "decode",
        "stage": "softmax",
        "tokens": 3,
        "sent_bytes": 12_345_678,
        "received_bytes": 1_000,
        "rounds": 1234.5,
        "blocked_seconds": 1.25,
        "rss_bytes": 2_000_000_000,
    }
    return {role: PartyProgress(role=role, **{**defaults, **changes}) for role in ROLES}


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=160, legacy_windows=False)


def output(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_terminal_shows_every_party_with_all_its_numbers(tmp_path: Path) -> None:
    screen, sweep = console(terminal=True), SweepProgress("quickstart", 2)
    with view(screen, sweep) as shown:
        sweep.begin([10.0, 20.0])
        shown.begin(fake_cell(tmp_path))
        shown.update(progress())
    text = output(screen)
    assert "quickstart: cell 1 of 2" in text
    for part in (*ROLES, "decode", "softmax", "12.3 MB", "1.0 kB", "1,234", "1.2 s", "2.0 GB"):
        assert part in text


@pytest.mark.parametrize("terminal", [True, False])
def test_the_links_being_measured_are_shown(tmp_path: Path, *, terminal: bool) -> None:
    now = iter([0.0, 0.0, *[9.0] * 20])
    screen, sweep = console(terminal=terminal), SweepProgress("quickstart", 2, lambda: next(now))
    with view(screen, sweep) as shown:
        sweep.begin([10.0, 20.0])
        shown.begin(fake_cell(tmp_path))
        shown.note("measuring the link client>server")
    assert "measuring the link client>server" in output(screen)


def test_a_party_that_has_not_reported_yet_is_shown_as_starting(tmp_path: Path) -> None:
    screen, sweep = console(terminal=True), SweepProgress("quickstart", 1)
    with view(screen, sweep) as shown:
        sweep.begin([10.0])
        shown.begin(fake_cell(tmp_path))
        shown.update(dict.fromkeys(ROLES))
    assert "starting" in output(screen)


def test_a_log_gets_a_line_every_few_seconds_and_no_control_codes(tmp_path: Path) -> None:
    clock = Clock()
    log, sweep = console(terminal=False), SweepProgress("quickstart", 1, clock)
    with view(log, sweep) as shown:
        sweep.begin([30.0])
        shown.begin(fake_cell(tmp_path))
        for _ in range(40):
            clock.now += 0.25
            shown.update(progress())
    lines = output(log).splitlines()
    assert len(lines) == 2  # after 5 and 10 seconds
    assert "\x1b" not in output(log)
    assert "about 25 s left" in lines[0]
    assert all(role in lines[0] for role in ROLES)


def test_a_log_of_a_long_cell_has_fewer_lines_as_it_goes_on(tmp_path: Path) -> None:
    clock = Clock()
    log, sweep = console(terminal=False), SweepProgress("quickstart", 1, clock)
    with view(log, sweep) as shown:
        sweep.begin([4000.0])
        shown.begin(fake_cell(tmp_path))
        for _ in range(3600):
            clock.now += 1
            shown.update(progress(tokens=1))
    lines = output(log).splitlines()
    assert len(lines) < 40
    assert "client decode/softmax 1 token," in lines[0]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_failed_cell_is_shown_with_its_error_on_one_line(tmp_path: Path, terminal: bool) -> None:
    screen, sweep = console(terminal=terminal), SweepProgress("quickstart", 3)
    error = {"status": "party_died", "message": "server [red]is gone[/red]", "role": "server"}
    with view(screen, sweep) as shown:
        sweep.begin([1.0, 1.0, 1.0])
        shown.begin(fake_cell(tmp_path))
        shown.end(failed_record(fake_cell(tmp_path), error, (), NOW, NOW), None)
    assert "[1/3] plain full 16 tokens" in output(screen)
    assert "party_died" in output(screen)
    assert "server [red]is gone[/red]" in output(screen)  # foreign text is not markup


@pytest.mark.parametrize("terminal", [True, False])
def test_the_text_is_shown_as_it_is(tmp_path: Path, terminal: bool) -> None:
    screen, sweep = console(terminal=terminal), SweepProgress("quickstart", 1)
    with view(screen, sweep) as shown:
        sweep.begin([1.0])
        shown.begin(fake_cell(tmp_path))
        shown.end(
            failed_record(fake_cell(tmp_path), {"status": "oom", "message": "m"}, (), NOW, NOW), "[bold]a word[/bold]"
        )
    assert "decoded: [bold]a word[/bold]" in output(screen)


def test_the_time_left_follows_the_estimates_and_the_clock() -> None:
    clock = Clock()
    sweep = SweepProgress("quickstart", 3, clock)
    sweep.begin([10.0, 20.0, 30.0])
    assert sweep.seconds_left == 60.0
    clock.now += 4
    assert sweep.seconds_left == 56.0
    clock.now += 100  # slower than expected: the remaining cells keep their estimates
    assert sweep.seconds_left == 50.0
    assert "1 min 44 s elapsed, this cell takes longer than expected, those after it about 50 s" in str(sweep)
    sweep.begin([200.0, 300.0])
    assert sweep.seconds_left == 500.0
    assert "cell 2 of 3, 1 min 44 s elapsed, about 8 min 20 s left" in str(sweep)
    sweep.begin([1.0])
    clock.now += 2
    assert str(sweep).endswith("elapsed, this cell takes longer than expected")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7620, "2 h 07 min"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@given(st.floats(0, 1e15))
def test_sizes_keep_three_digits_or_more(count: float) -> None:
    number, unit = size(count).split()
    scale = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert abs(float(number) * scale - count) <= max(0.5, 0.051 * scale)


def test_while_a_model_is_loaded_its_share_is_shown(tmp_path: Path) -> None:
    screen, sweep = console(terminal=True), SweepProgress("quickstart", 1)
    with view(screen, sweep) as shown:
        sweep.begin([30.0])
        shown.begin(fake_cell(tmp_path))
        shown.update(progress(state="loading", loaded=0.43))
    assert "loading 43%" in output(screen)
