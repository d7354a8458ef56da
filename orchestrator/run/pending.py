"""Pending cells of a sweep, and the budget that they may use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from orchestrator.experiment.axes import Condition, Point
from orchestrator.experiment.cells import Cell
from orchestrator.experiment.problems import ConfigError, problems_of
from orchestrator.predict.prediction import Prediction
from orchestrator.records.record import Record, Status
from orchestrator.run.retry import Retry

GIGABYTE = 1e9


def parse_only(text: str) -> Condition:
    """A condition from the command line, such as `engine=fss seq_len=128,256`.

    Raises:
        ConfigError: It names no axis, or a value that the axis cannot have.
    """
    pairs = [word.partition("=") for word in text.split()]
    given = {name: values.split(",") for name, _, values in pairs}
    numbers = {name: [int(v) if v.isdecimal() else v for v in values] for name, values in given.items()}
    whole = {name: numbers[name] if name in ("seq_len", "batch", "repeat") else given[name] for name in given}
    try:
        return Condition.model_validate(whole)
    except ValidationError as error:
        raise ConfigError(f"--only {text!r}", problems_of(error, Condition)) from None


def wanted(cells: Sequence[Cell], only: Sequence[Condition]) -> tuple[Cell, ...]:
    """The cells that match one of the conditions; all where there is none."""
    return tuple(cell for cell in cells if not only or any(condition.matches(_point(cell)) for condition in only))


def unfinished(cells: Sequence[Cell], known: Mapping[str, Record], retry: Retry) -> tuple[Cell, ...]:
    """The cells without a final record.

    A record of status `interrupted` is never final; one of a failed cell is, unless failed cells are to be tried again.

    Args:
        cells: The cells, in the order to run them.
        known: The latest record of each cell by id.
        retry: Whether failed cells run again.
    """
    again = {Status.INTERRUPTED} if retry is Retry.NONE else set(Status) - {Status.OK}
    return tuple(cell for cell in cells if cell.id not in known or known[cell.id].status in again)


def _point(cell: Cell) -> Point:
    return Point(cell.network, cell.engine, cell.seq_len, cell.policy, cell.batch, cell.draft, cell.repeat, cell.warmup)


@dataclass(frozen=True)
class Budget:
    """Limits of one call of the command.

    Attributes:
        cells: Limit on the number of cells.
        seconds: Limit on the time of all cells.
        sent_bytes: Limit on the bytes that the parties send in the phases online and offline.
    """

    cells: int | None = None
    seconds: float | None = None
    sent_bytes: float | None = None


NO_LIMIT = Budget()


class Spending:
    """Account of a budget: refuses the next cell where it is expected to exceed what is left."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._cells, self._seconds, self._bytes = 0, 0.0, 0.0

    def refusal(self, expected: Prediction) -> str:
        """Why the next cell must not start; empty if it may."""
        budget = self._budget
        ahead = (expected.online_bytes or 0.0) + (expected.offline_bytes or 0.0)
        if budget.cells is not None and self._cells >= budget.cells:
            return f"--limit {budget.cells} is reached"
        if budget.seconds is not None and self._seconds + expected.seconds > budget.seconds:
            return (
                f"the next cell is expected to take {expected.seconds:,.0f} s, and {self._seconds:,.0f} s of "
                f"--max-seconds {budget.seconds:,.0f} are used"
            )
        if budget.sent_bytes is not None and self._bytes + ahead > budget.sent_bytes:
            return (
                f"the next cell is expected to send {ahead / GIGABYTE:,.2f} GB, and {self._bytes / GIGABYTE:,.2f} GB "
                f"of --max-gigabytes {budget.sent_bytes / GIGABYTE:,.2f} are used"
            )
        return ""

    def add(self, record: Record) -> None:
        """Count a cell that is over."""
        self._cells += 1
        self._seconds += (record.finished - record.started).total_seconds()
        if record.totals is not None:
            phases = (record.totals.online, record.totals.offline)
            self._bytes += sum(sum(phase.sent_bytes.values()) for phase in phases)
        elif record.error is not None:
            self._bytes += record.error.sent_bytes
