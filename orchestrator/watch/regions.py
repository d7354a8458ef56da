"""The cells of a run as regions on the time axis of the boards."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from dashboards.annotations import Region
from orchestrator.records.record import Record
from orchestrator.records.store import RecordStore, StoreError
from orchestrator.report.words import duration

_LONGEST_TAG = 100


def regions(folder: Path) -> tuple[Region, ...]:
    """A region for each record of a run: its cell's parameters in the text and in the tags.

    Args:
        folder: The run's folder.

    Raises:
        StoreError: It holds no records, or they cannot be read.
    """
    records = RecordStore(folder).read()
    if not records:
        raise StoreError(f"{folder} holds no records; give the folder of a run, as it was given to --out")
    return tuple(map(_region, records))


def _region(record: Record) -> Region:
    return Region(
        start_ms=_milliseconds(record.started),
        end_ms=_milliseconds(record.finished),
        experiment=_tag("experiment", record.experiment),
        cell=_tag("cell", record.id),
        parameters=tuple(_parameters(record)),
        text=f"{record.cell}, {record.cell.new_tokens} new tokens, {record.cell.model}: {_outcome(record)}",
    )


def _parameters(record: Record) -> Iterator[str]:
    cell = record.cell
    yield _tag("status", record.status)
    yield _tag("engine", cell.engine)
    yield _tag("policy", cell.policy.name)
    yield _tag("network", cell.network.name)
    yield _tag("seq_len", cell.seq_len)
    yield _tag("repeat", cell.repeat)


def _outcome(record: Record) -> str:
    if record.error is not None:
        return f"{record.status}, {record.error.message}"
    return f"{record.status}, {duration(record.seconds_per_token)} per token"


def _milliseconds(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def _tag(name: str, value: object) -> str:
    return f"{name}:{value}"[:_LONGEST_TAG]  # Grafana stores no longer ones
