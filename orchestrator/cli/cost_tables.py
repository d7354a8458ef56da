"""The tables of `mpcache-bench cost`."""

from collections.abc import Iterable, Iterator, Sequence

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from orchestrator.experiment.cells import Cell
from orchestrator.experiment.link_time import PARTIES, PhaseCost, StageCost, link_seconds
from orchestrator.predict.calibration import Calibration
from orchestrator.predict.forecast import Forecast, forecast, has_model
from orchestrator.predict.local_work import RULE_OF_THUMB
from orchestrator.predict.prediction import UNKNOWN, Prediction, predict
from orchestrator.records.record import Record
from orchestrator.report.words import byte_count, digits, duration

_CELL = ("engine", "policy", "prompt tokens", "network", "of")
_COUNTS = ("rounds", "client sends", "server sends", "dealer to client", "dealer to server")
_RETRIES = "retries"
_SECONDS = ("links", "compute", "seconds", "counts", "compute from")
_NOTES = """Exact counts are those of a run, framing included. They leave out what is run again by chance, and requests.
Retries: segments that are run again, on average; calibrate --narrow finds the bounds that make them rare.
Seconds are compute + rounds x delay + bytes / rate, or what a streaming dealer's links take if that is more."""
_CALIBRATE = f"""
Compute by a {RULE_OF_THUMB}: measure this machine by `mpcache-bench cost --calibrate`, or name runs by --records."""
_UNMODELLED = ("no cost model", "n/a")
_UNKNOWN = ("n/a",) * len((*_COUNTS, _RETRIES, "links", "compute"))
_TEXT = ("engine", "policy", "network", "of", "stage", "counts", "compute from")


def costs(cells: Sequence[Cell], past: Iterable[Record], calibration: Calibration | None) -> Table:
    """A row for each cell, amounts per token, and one for its prompt where the parties run it themselves.

    Raises:
        PartyError: A policy's trained heads cannot be read here.
    """
    past, rough, pays = list(past), False, list[str]()
    result = _table("", (*_CELL, *_COUNTS, _RETRIES, *_SECONDS))
    for cell in cells:
        counts = forecast(cell) if has_model(cell) else None
        expected = predict(cell, past, calibration, most=None)
        if cell.prefill == "mpc" and cell.engine.name != "plain":
            result.add_row(
                *_words(cell, "the prompt" if cell.batch == 1 else "the prompts"), *_prompt(cell, counts, expected)
            )
        result.add_row(*_words(cell, of_what(cell)), *_token(counts, expected))
        if cell.draft and cell.engine.name != "plain":
            pays.append(_pays_from(cell, expected, predict(without_draft(cell), past, calibration, most=None)))
        rough = rough or expected.source == RULE_OF_THUMB
    result.caption = Text("\n".join([_NOTES + (_CALIBRATE if rough else ""), *pays]))
    return result


def stages(cells: Iterable[Cell]) -> Iterator[Table]:
    """Online rounds and bytes by stage, all tokens together: a table for each forecast that is exact."""
    different = {
        (cell.engine.name, str(cell.policy), cell.prompt_tokens, cell.comparison, cell.softmax, cell.draft): cell
        for cell in cells
    }
    for cell in different.values():
        found = forecast(cell) if has_model(cell) else None
        if found is not None and found.decode.stages:
            yield _stages(cell, found)


def _stages(cell: Cell, found: Forecast) -> Table:
    title = f"{cell.engine.name} {cell.policy} {cell.prompt_tokens} tokens, {cell.new_tokens} new, {cell.comparison}"
    if cell.softmax != "tables":
        title += f", softmax by {cell.softmax}"
    if cell.draft:
        title += f", draft {cell.draft}, none accepted"
    result = _table(title, ("of", "stage", *_COUNTS[:3]))
    for name, cost in (("the prompt", found.prefill), ("all tokens", found.decode)):
        if cost is None:
            continue
        for stage in (*cost.stages, StageCost("together", cost.rounds, cost.sent)):
            amounts = [f"{stage.sent[role]:,}" for role in PARTIES]
            result.add_row(name, stage.stage, f"{stage.rounds:,g}", *amounts)
        result.add_section()
    return result


def of_what(cell: Cell) -> str:
    """The step whose amounts a row has."""
    if cell.draft:
        return f"a pass of {cell.draft.count + 1}"
    return "a token" if cell.batch == 1 else "a token of each"


def without_draft(cell: Cell) -> Cell:
    """The same cell, decoded one by one."""
    return cell.model_copy(update={"draft": None})


def _pays_from(cell: Cell, drafted: Prediction, alone: Prediction) -> str:
    """From which acceptance a pass takes less time than its tokens one by one, in words."""
    name = f"{cell.engine} {cell.policy} {cell.seq_len} tokens, {cell.network.name}, draft {cell.draft}"
    if UNKNOWN in (drafted.source, alone.source):
        return f"{name}: no cost model"
    needed = max(0.0, drafted.seconds_per_pass / alone.seconds_per_pass - 1)
    if cell.draft is None or needed >= cell.draft.count:
        return f"{name}: does not pay"
    return f"{name}: pays from {digits(needed)} accepted per pass ({needed / cell.draft.count:.0%} of a draft)"


def _token(counts: Forecast | None, expected: Prediction) -> list[str]:
    """Amounts per token; without a cost model only the seconds of a record."""
    n = expected.tokens
    if counts is None:
        return [*_UNKNOWN, _recorded(expected, expected.decode_seconds / n), *_UNMODELLED]
    times = [expected.link_seconds / n, expected.local_seconds / n, expected.seconds_per_pass]
    return [*_counts(counts.decode, n), *map(duration, times), _sort(counts), expected.source]


def _recorded(expected: Prediction, seconds: float) -> str:
    return duration(seconds) if expected.measured else "n/a"


def _prompt(cell: Cell, counts: Forecast | None, expected: Prediction) -> list[str]:
    if counts is None:
        return [*_UNKNOWN, _recorded(expected, expected.prompt_seconds), *_UNMODELLED]
    seconds = duration(expected.prompt_seconds)
    if counts.prefill is None:
        return [*_UNKNOWN, seconds, "n/a", expected.source]
    links = link_seconds(counts.prefill, cell.network, cell.engine.name)
    return [*_counts(counts.prefill, 1), duration(links), "n/a", seconds, _sort(counts), expected.source]


def _counts(cost: PhaseCost, n: int) -> list[str]:
    sizes = [parts[role] / n for parts in (cost.sent, cost.dealt) for role in PARTIES]
    return [digits(cost.rounds / n), *map(byte_count, sizes), f"{cost.retries / n:.2g}"]


def _sort(found: Forecast) -> str:
    return "exact" if found.exact else "estimate"


def _words(cell: Cell, what: str) -> list[Text]:
    return [Text(str(value)) for value in (cell.engine, cell.policy, cell.prompt_tokens, cell.network.name, what)]


def _table(title: str, columns: Sequence[str]) -> Table:
    result = Table(title=Text(title) if title else None, title_justify="left", box=SIMPLE, caption_justify="left")
    for column in columns:
        result.add_column(column, justify="left" if column in _TEXT else "right", overflow="fold")
    return result
