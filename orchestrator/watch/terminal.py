"""The sweep as it runs: a table that refreshes in a terminal, plain lines anywhere else."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.experiment.cells import Cell
from orchestrator.records.record import Record
from parties.roles.reports import PartyProgress

Progress = Mapping[str, PartyProgress | None]

_COLUMNS = ("party", "state", "stage", "tokens", "sent", "received", "rounds", "blocked", "memory")
_TEXT_COLUMNS = 3
_LINE_EVERY_S = 5.0
_LINE_EVERY_SHARE = 0.2  # of the time that the cell has taken: a log of a long cell stays short


class View(Protocol):
    """Receives the events of a sweep."""

    def begin(self, cell: Cell) -> None:
        """A cell starts."""

    def update(self, progress: Progress) -> None:
        """The parties' progress, by role; called a few times per second."""

    def note(self, what: str) -> None:
        """An action of the driver itself, such as measuring a link."""

    def end(self, record: Record, text: str | None) -> None:
        """A cell is over; `text` is what the client decoded, if it is to be shown."""


class SweepProgress:
    """Progress of a sweep: the current cell, the elapsed and the remaining time.

    Args:
        name: Name of the experiment.
        total: Number of cells to run.
        clock: Source of time, in seconds.
    """

    def __init__(self, name: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.number = 0
        self.total = total
        self._expected: Sequence[float] = ()
        self._clock = clock
        self._began = self._cell_began = clock()

    def begin(self, expected_seconds: Sequence[float]) -> None:
        """The next cell starts.

        Args:
            expected_seconds: Estimate of this cell and of each later one.
        """
        self.number += 1
        self._expected = expected_seconds
        self._cell_began = self._clock()

    @property
    def seconds(self) -> float:
        """Seconds since the sweep began."""
        return self._clock() - self._began

    @property
    def cell_seconds(self) -> float:
        """Seconds since the cell began."""
        return self._clock() - self._cell_began

    @property
    def seconds_left(self) -> float:
        """Expected seconds to the end of the sweep, never negative."""
        this, *later = self._expected or (0.0,)  # before the first cell nothing is known
        return max(0.0, this - self.cell_seconds) + sum(later)

    @property
    def overdue(self) -> bool:
        """Whether the cell takes longer than expected, so that nothing is known about the rest of it."""
        return bool(self._expected) and self.cell_seconds > self._expected[0]

    def __str__(self) -> str:
        left = f"about {duration(self.seconds_left)} left"
        if self.overdue:
            left = "this cell takes longer than expected"
            left += f", those after it about {duration(self.seconds_left)}" if self._expected[1:] else ""
        return f"{self.name}: cell {self.number} of {self.total}, {duration(self.seconds)} elapsed, {left}"


class TableView:
    """A table that refreshes in place, below one line for each finished cell."""

    def __init__(self, live: Live, sweep: SweepProgress) -> None:
        self._live = live
        self._sweep = sweep
        self._title = ""

    def begin(self, cell: Cell) -> None:
        """A cell starts."""
        self._title = str(cell)
        self.update({})

    def update(self, progress: Progress) -> None:
        """The parties' progress, by role."""
        self._live.update(_screen(str(self._sweep), self._title, progress))

    def note(self, what: str) -> None:
        """An action of the driver itself."""
        self._live.update(Group(Text(str(self._sweep), style="bold"), Text(self._title), Text(what)))

    def end(self, record: Record, text: str | None) -> None:
        """A cell is over."""
        for line in _result_lines(record, self._sweep, text):
            self._live.console.print(Text(line))


class LineView:
    """A line every few seconds, fewer in long cells, and one for each finished cell, for logs and pipes."""

    def __init__(self, console: Console, sweep: SweepProgress) -> None:
        self._console = console
        self._sweep = sweep
        self._title = ""
        self._next_line_at = 0.0

    def begin(self, cell: Cell) -> None:
        """A cell starts."""
        self._title = str(cell)
        self._next_line_at = _LINE_EVERY_S

    def update(self, progress: Progress) -> None:
        """The parties' progress, by role."""
        self.note("; ".join(_words(role, state) for role, state in progress.items() if state) or "parties are starting")

    def note(self, what: str) -> None:
        """An action of the driver itself."""
        if self._sweep.cell_seconds < self._next_line_at:
            return
        seconds = self._sweep.cell_seconds
        self._next_line_at = seconds + max(_LINE_EVERY_S, _LINE_EVERY_SHARE * seconds)
        self._print(f"{self._sweep}; {self._title}; {what}")

    def end(self, record: Record, text: str | None) -> None:
        """A cell is over."""
        for line in _result_lines(record, self._sweep, text):
            self._print(line)

    def _print(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)


class Views:
    """Several views as one."""

    def __init__(self, *views: View) -> None:
        self._views = views

    def begin(self, cell: Cell) -> None:
        """A cell starts."""
        for one in self._views:
            one.begin(cell)

    def update(self, progress: Progress) -> None:
        """The parties' progress, by role."""
        for one in self._views:
            one.update(progress)

    def note(self, what: str) -> None:
        """An action of the driver itself."""
        for one in self._views:
            one.note(what)

    def end(self, record: Record, text: str | None) -> None:
        """A cell is over."""
        for one in self._views:
            one.end(record, text)


@contextmanager
def view(console: Console, sweep: SweepProgress) -> Iterator[View]:
    """The view that suits the console; a table in a terminal is taken off the screen at the end."""
    if not console.is_terminal:
        yield LineView(console, sweep)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield TableView(live, sweep)


def duration(seconds: float) -> str:
    """Seconds as words: `42 s`, `3 min 05 s`, `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def size(count: float) -> str:
    """Bytes in decimal units, as networks count: `12.3 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _screen(header: str, title: str, progress: Progress) -> RenderableType:
    table = Table(*_COLUMNS, expand=False)
    for column in table.columns[_TEXT_COLUMNS:]:
        column.justify = "right"
    for role, state in progress.items():
        table.add_row(*map(Text, _row(role, state)))
    return Group(Text(header, style="bold"), Text(title), table)


def _row(role: str, progress: PartyProgress | None) -> tuple[str, ...]:
    if progress is None:
        return (role, "starting", *[""] * (len(_COLUMNS) - 2))
    return (
        role,
        _state(progress),
        progress.stage,
        f"{progress.tokens}",
        size(progress.sent_bytes),
        size(progress.received_bytes),
        f"{progress.rounds:,.0f}",
        f"{progress.blocked_seconds:.1f} s",
        size(progress.rss_bytes),
    )


def _state(progress: PartyProgress) -> str:
    return progress.state if progress.loaded is None else f"{progress.state} {progress.loaded:.0%}"


def _words(role: str, progress: PartyProgress) -> str:
    tokens = "1 token" if progress.tokens == 1 else f"{progress.tokens} tokens"
    return (
        f"{role} {_state(progress)}/{progress.stage} {tokens}, {size(progress.sent_bytes)} sent, "
        f"{progress.rounds:,.0f} rounds"
    )


def _result_lines(record: Record, sweep: SweepProgress, text: str | None) -> Iterator[str]:
    line = f"[{sweep.number}/{sweep.total}] {record.cell}: {record.status}, {duration(sweep.cell_seconds)}"
    if record.seconds_per_token is not None:
        line += f", {record.seconds_per_token:.3g} s per token"
    if record.error is not None:
        line += f"; {record.error.message}"
    yield line
    if text is not None:
        yield f"  decoded: {text}"
