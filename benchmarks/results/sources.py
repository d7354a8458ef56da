"""Sources of the tables: the records of docs/results/, and the exact predictions of `mpcache-bench cost`."""

from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.experiment.cells import expand
from orchestrator.experiment.experiment import Experiment
from orchestrator.predict.forecast import Forecast, forecast
from orchestrator.records.record import Record
from orchestrator.records.store import RECORDS, RecordStore
from orchestrator.report.rows import Row, rows

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"

RUNS = (
    "speedup",
    "networks",
    "pays",
    "sweep",
    "batch",
    "draft",
    "engines",
    "paper_spu",
    "paper_layer",
    "gpu",
    "gpu_small",
)
"""Folders of RESULTS, each a run of the example of that name."""

NETWORKS = ("none", "lan", "wan-1g-10ms", "wan", "wan-100m-80ms")
"""The links that runs are measured on, from the fastest to the slowest."""

MPCACHE = {"name": "mpcache", "static_keep": 0.4, "select": 0.2}
ATTENTION = ("similarity", "topk", "gather", "scores", "softmax", "attend")

Line = TypeVar("Line", bound=tuple[Any, ...])
Column = TypeVar("Column")

Tables = dict[str, Callable[[], str]]
"""The tables of a page by name."""


class NotMeasuredError(Exception):
    """The records of a table are not committed."""


@cache
def records(folder: str) -> tuple[Record, ...]:
    """The records of a committed run.

    Raises:
        NotMeasuredError: There are none.
    """
    if not (RESULTS / folder / RECORDS).exists():
        raise NotMeasuredError(folder)
    return tuple(RecordStore(RESULTS / folder).latest().values())


def measured(folder: str) -> list[Row]:
    """A row for each measured point, repeats taken together."""
    return rows(records(folder))


def links_of(found: Iterable[Row]) -> list[str]:
    """The links that the rows were measured on, from the fastest to the slowest."""
    known = {row.network for row in found}
    return [name for name in NETWORKS if name in known]


def pivot(
    found: Iterable[Row], line: Callable[[Row], Line], column: Callable[[Row], Column]
) -> dict[Line, dict[Column, Row]]:
    """The rows by line and column of a table, the lines in order."""
    lines: dict[Line, dict[Column, Row]] = {}
    for row in found:
        lines.setdefault(line(row), {})[column(row)] = row
    return dict(sorted(lines.items()))


def by_link(found: Iterable[Row], line: Callable[[Row], Line]) -> dict[Line, dict[str, Row]]:
    """The rows by line and link."""
    return pivot(found, line, lambda row: row.network)


@cache
def predicted(policy: str, seq_len: int) -> Forecast:
    """One decoded token of `fss` with SmolLM2-135M."""
    asked: dict[str, Any] = {
        "name": "results",
        "model": "smollm2-135m",
        "prompt": {"random_tokens": True},
        "engines": ["fss"],
        "policies": [MPCACHE if policy == "mpcache" else policy],
        "seq_lens": [seq_len],
        "new_tokens": 1,
        "comparison": "dcf",
    }
    (cell,) = expand(Experiment.model_validate(asked))
    return forecast(cell)


def attention_bytes(found: Forecast) -> float:
    """The part of the online bytes each way that attention takes."""
    return sum(stage.sent["client"] for stage in found.decode.stages if stage.stage in ATTENTION)


def machine_tables() -> Tables:
    """A line about the machine for each run."""
    return {f"machine-{name}": partial(machine, name) for name in RUNS}


def machine(folder: str) -> str:
    """The report, the model, the time, the hardware and the software of a run; empty if the run is not committed."""
    try:
        found = records(folder)
    except NotMeasuredError:
        return ""
    first, last = min(record.started for record in found), max(record.finished for record in found)
    end = f"{last:%H:%M}" if last.date() == first.date() else f"{last:%Y-%m-%d %H:%M}"

    def facts(name: str) -> str:
        return ", ".join(sorted({record.versions[name] for record in found if record.versions.get(name)}))

    models = ", ".join(sorted({f"`{record.cell.model}`" for record in found}))
    software = {"Python": facts("python"), "torch": facts("torch"), "CrypTen": facts("crypten")}
    ours = f",\nmpcache-bench {facts('mpcache-bench')} at commit {facts('commit')}" if facts("commit") else ""
    return (
        f"*[Report]({folder}/report.md): {len(found)} records of {models}, {first:%Y-%m-%d %H:%M} to {end} UTC.\n"
        f"Machine: {facts('cpu')}, {facts('cores')} cores, {facts('memory_gib')} GiB; {facts('kernel')}.\n"
        f"{', '.join(f'{name} {version}' for name, version in software.items() if version)}{ours}.*"
    )
