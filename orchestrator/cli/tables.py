"""Tables of the command line: the plan of a sweep, and its outcome."""

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from orchestrator.experiment.cells import Cell
from orchestrator.predict.calibration import Calibration
from orchestrator.predict.prediction import predict
from orchestrator.records.record import Record
from orchestrator.report.words import byte_count, digits, duration

_MOST_CAUSES = 3
_CELL = ("engine", "policy", "prompt tokens", "network", "repeat")


def plan(
    name: str,
    cells: Sequence[Cell],
    pending: Sequence[Cell],
    past: Sequence[Record],
    calibration: Calibration | None = None,
) -> Table:
    """The cells of a sweep with a prediction of each, and of all that are still to run.

    Args:
        name: Name of the experiment.
        cells: All of them.
        pending: Those that would run; the others are done.
        past: Records that predictions learn from.
        calibration: Calibration of this machine.
    """
    table = _table(
        f"{name}: {len(cells)} cells", ("id", *_CELL, "time, about", "online bytes", "offline bytes", "from")
    )
    left = {cell.id for cell in pending}
    seconds, online, offline = 0.0, 0.0, 0.0
    for cell in cells:
        if cell.id not in left:
            table.add_row(cell.id, *_words(cell), "", "", "", "done")
            continue
        expected = predict(cell, past, calibration)
        seconds += expected.seconds
        online += expected.online_bytes or 0
        offline += expected.offline_bytes or 0
        amounts = (duration(expected.seconds), byte_count(expected.online_bytes), byte_count(expected.offline_bytes))
        table.add_row(cell.id, *_words(cell), *amounts, expected.source)
    table.add_section()
    table.add_row("still to run", *[""] * 5, duration(seconds), byte_count(online), byte_count(offline), "")
    return table


def summary(records: Sequence[Record]) -> Table:
    """How each cell went; all amounts per decoded token."""
    columns = ("time per token, online + offline", "online bytes", "online rounds", "offline bytes", "max logit error")
    table = _table("", ("status", *_CELL, *columns))
    for record in records:
        table.add_row(record.status.value, *_words(record.cell), *_amounts(record))
    failures = [f"{record.cell}: {record.error.message}" for record in records if record.error is not None]
    if (others := len(failures) - _MOST_CAUSES) > 0:
        failures[_MOST_CAUSES:] = [f"{others} more: their causes are above, and in the report"]
    table.caption = Text("\n".join(failures)) if failures else None
    return table


def _amounts(record: Record) -> tuple[str, ...]:
    if record.totals is None:
        return ("",) * 5
    online, offline, n = record.totals.online, record.totals.offline, record.tokens
    return (
        duration(record.seconds_per_token),
        byte_count(sum(online.sent_bytes.values()) / n),
        digits(online.rounds / n),
        byte_count(sum(offline.sent_bytes.values()) / n),
        digits(record.check.max_abs_logit_error if record.check else None),
    )


def _words(cell: Cell) -> tuple[Text, ...]:
    repeat = f"warm-up {cell.repeat}" if cell.warmup else cell.repeat
    values = (cell.engine, cell.policy, cell.prompt_tokens, cell.network.name, repeat)
    return tuple(Text(str(value)) for value in values)


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=Text(title) if title else None, title_justify="left", box=SIMPLE, caption_justify="left")
    for column in columns:
        text = column in ("id", "status", "engine", "policy", "network", "from")
        table.add_column(
            column, justify="left" if text else "right", no_wrap=column in ("id", "status"), overflow="fold"
        )
    return table
