"""The tables of `mpcache-bench cost`."""

from collections.abc import Iterable, Iterator, Sequence

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from orchestrator.experiment.cells import Cell
from orchestrator.predict.calibration import Calibration
from orchestrator.predict.forecast import (
    PARTIES,
    Forecast,
    PhaseCost,
    StageCost,
    forecast,
    network_seconds,
    wall_seconds,
)
from orchestrator.predict.local_work import compute
from orchestrator.records.record import Record
from orchestrator.report.words import byte_count, digits, duration

_CELL = ("engine", "policy", "prompt tokens", "network", "of")
_COUNTS = ("rounds", "client sends", "server sends", "dealer to client", "dealer to server")
_SECONDS = ("links", "compute", "seconds", "counts", "compute from")
_NOTES = """Exact counts are those of a run, framing included. They leave out what is run again by chance, and requests.
Seconds are compute + rounds x delay + bytes / rate, or what a streaming dealer's links take if that is more."""
_CALIBRATE = """
Compute is n/a: measure this machine by `mpcache-bench cost --calibrate`, or name past runs by --records."""
_TEXT = ("engine", "policy", "network", "of", "stage", "counts", "compute from")


def costs(cells: Sequence[Cell], past: Iterable[Record], calibration: Calibration | None) -> Table:
    """A row for each cell, amounts a token, and one for its prompt where the parties run it themselves."""
    past, known = list(past), True
    result = _table("", (*_CELL, *_COUNTS, *_SECONDS))
    for cell in cells:
        found = forecast(cell)
        if cell.prefill == "mpc" and cell.engine.name != "plain":
            result.add_row(*_words(cell, "the prompt"), *_prompt(cell, found))
        result.add_row(*_words(cell, "a token"), *_token(cell, found, past, calibration))
        known = known and compute(cell, past, calibration) is not None
    result.caption = Text(_NOTES + ("" if known else _CALIBRATE))
    return result


def stages(cells: Iterable[Cell]) -> Iterator[Table]:
    """Online rounds and bytes by stage, all tokens together: a table for each forecast that is exact."""
    different = {(cell.engine.name, str(cell.policy), cell.seq_len, cell.comparison): cell for cell in cells}
    for cell in different.values():
        found = forecast(cell)
        if found.decode.stages:
            yield _stages(cell, found)


def _stages(cell: Cell, found: Forecast) -> Table:
    title = f"{cell.engine.name} {cell.policy} {cell.seq_len} tokens, {cell.new_tokens} new, {cell.comparison}"
    result = _table(title, ("of", "stage", *_COUNTS[:3]))
    for name, cost in (("the prompt", found.prefill), ("all tokens", found.decode)):
        if cost is None:
            continue
        for stage in (*cost.stages, StageCost("together", cost.rounds, cost.sent)):
            amounts = [f"{stage.sent[role]:,}" for role in PARTIES]
            result.add_row(name, stage.stage, f"{stage.rounds:,g}", *amounts)
        result.add_section()
    return result


def _token(cell: Cell, found: Forecast, past: Sequence[Record], calibration: Calibration | None) -> list[str]:
    """Amounts a token."""
    n, local = cell.new_tokens, compute(cell, past, calibration)
    links = network_seconds(found.decode, cell)
    seconds = None if local is None else wall_seconds(local.seconds, found.decode, cell) / n
    times = [duration(links / n), duration(None if local is None else local.seconds / n), duration(seconds)]
    return [*_counts(found.decode, n), *times, _sort(found), "n/a" if local is None else local.source]


def _prompt(cell: Cell, found: Forecast) -> list[str]:
    if found.prefill is None:
        return ["n/a"] * len((*_COUNTS, *_SECONDS))
    links = duration(network_seconds(found.prefill, cell))
    return [*_counts(found.prefill, 1), links, "n/a", "n/a", _sort(found), "n/a"]


def _counts(cost: PhaseCost, n: int) -> list[str]:
    sizes = [parts[role] / n for parts in (cost.sent, cost.dealt) for role in PARTIES]
    return [digits(cost.rounds / n), *map(byte_count, sizes)]


def _sort(found: Forecast) -> str:
    return "exact" if found.exact else "estimate"


def _words(cell: Cell, what: str) -> list[Text]:
    return [Text(str(value)) for value in (cell.engine, cell.policy, cell.seq_len, cell.network.name, what)]


def _table(title: str, columns: Sequence[str]) -> Table:
    result = Table(title=Text(title) if title else None, title_justify="left", box=SIMPLE, caption_justify="left")
    for column in columns:
        result.add_column(column, justify="left" if column in _TEXT else "right", overflow="fold")
    return result
