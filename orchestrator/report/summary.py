"""The report's first screen: the cells, the machine, the outcome, and the trust assumptions behind the numbers."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.experiment.cells import Cell
from orchestrator.records.record import Record
from parties.engines import STOCK_IS_INSECURE


@dataclass(frozen=True)
class Summary:
    """The values that all records have in common, and the number of records with each status."""

    title: str
    facts: tuple[tuple[str, str], ...]
    statuses: tuple[tuple[str, int], ...]
    trust: tuple[tuple[str, str], ...]
    prefill: tuple[str, ...]
    leaks: tuple[tuple[str, str], ...]
    warnings: tuple[tuple[str, int], ...]
    versions: tuple[tuple[str, str], ...]


def summarise(records: Sequence[Record]) -> Summary:
    """The first screen of the report of these records."""
    cells = [record.cell for record in records]
    statuses = Counter(record.status.value for record in records)
    repeats = 1 + max((cell.repeat for cell in cells), default=0)
    facts = {
        "Model": _all(cell.model for cell in cells),
        "Engines": _all(str(cell.engine) for cell in cells),
        "Policies": _all(str(cell.policy) for cell in cells),
        "Prompt lengths": f"{_all(str(n) for n in sorted({cell.seq_len for cell in cells}))} tokens",
        "New tokens a cell": _all(str(n) for n in sorted({cell.new_tokens for cell in cells})),
        "Repeats": str(repeats),
        "Networks": _all(cell.network.name for cell in cells),
        "Next token": _all(_ARGMAX[cell.argmax] for cell in cells),
        "Bounds": _all(_bounds(cell) for cell in cells),
        "Machine": _all(_machine(record) for record in records),
        "When": _when(records),
    }
    return Summary(
        title=_all(record.experiment for record in records) or "unnamed experiment",
        facts=tuple((name, value) for name, value in facts.items() if value or name != "Bounds"),
        statuses=tuple(sorted(statuses.items(), key=lambda item: (item[0] != "ok", item[0]))),
        trust=_unique(pair for record in records for pair in _trust(record)),
        prefill=tuple(dict.fromkeys(record.prefill for record in records)),
        leaks=_unique((record.cell.policy.name, record.leaks) for record in records if record.leaks),
        warnings=_grouped(text for record in records for text in record.warnings),
        versions=_versions(records),
    )


_NUMBER = re.compile(r"\d[\d,.]*")
_ARGMAX = {"private": "private argmax", "client": "logits opened to the client"}


def _trust(record: Record) -> tuple[tuple[str, str], ...]:
    """The trust model of the record; of stock randomness also its warning, which earlier versions did not record."""
    engine, recorded = record.cell.engine, record.trust_model
    missing = engine.randomness == "stock" and STOCK_IS_INSECURE not in recorded
    return ((str(engine), recorded), *([(str(engine), f"insecure: {STOCK_IS_INSECURE}")] if missing else []))


def _bounds(cell: Cell) -> str:
    return ", ".join(f"{number} up to {limit:,}" for number, limit in cell.bounds)


def _all(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(value for value in values if value))


def _unique(pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple(dict.fromkeys(pairs))


def _grouped(warnings: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """Groups warnings that differ only in numbers: the first of each group, and the size of the group."""
    groups: dict[str, list[str]] = {}
    for text in warnings:
        groups.setdefault(_NUMBER.sub("#", text), []).append(text)
    return tuple((texts[0], len(texts)) for texts in groups.values())


def _machine(record: Record) -> str:
    known = record.versions
    if "cpu" not in known:
        return "unknown"
    return f"{known['cpu']}, {known.get('cores', '?')} cores, {known.get('memory_gib', '?')} GiB"


def _when(records: Sequence[Record]) -> str:
    if not records:
        return "never"
    first, last = min(record.started for record in records), max(record.finished for record in records)
    return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"


def _versions(records: Sequence[Record]) -> tuple[tuple[str, str], ...]:
    names = dict.fromkeys(name for record in records for name in record.versions)
    return tuple((name, _all(record.versions.get(name, "") for record in records)) for name in names)
