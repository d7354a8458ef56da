"""Compares two runs: the changes, and a verdict on time where the repeats allow one."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.records.store import RecordStore, StoreError
from orchestrator.report.rows import Row, rows
from orchestrator.report.serving import serving_row


@dataclass(frozen=True)
class Pair:
    """One measurement in both runs; amounts are per decoded token."""

    before: Row
    after: Row

    @property
    def ratio(self) -> float:
        """Median seconds after over before."""
        return self.after.seconds / self.before.seconds

    @property
    def verdict(self) -> str:
        """`faster` or `slower` if the repeats of the two runs do not overlap; otherwise why there is no verdict."""
        if min(len(self.before.records), len(self.after.records)) < 2:
            return "one run each: no verdict"
        if self.after.high < self.before.low:
            return "faster"
        if self.after.low > self.before.high:
            return "slower"
        return "no difference that the repeats show"

    @property
    def counts(self) -> str:
        """The differences in bytes and rounds, which are exact."""
        amounts = {
            "online bytes": (self.before.online_bytes, self.after.online_bytes),
            "offline bytes": (self.before.offline_bytes, self.after.offline_bytes),
            "rounds": (self.before.rounds, self.after.rounds),
        }
        changed = [f"{name} {old:,.0f} -> {new:,.0f}" for name, (old, new) in amounts.items() if old != new]
        return "; ".join(changed) or "equal"

    @property
    def serving(self) -> str:
        """TTFT, TPOT, ITL, tokens per second and acceptance of both; empty where a run does not hold them."""
        sides = [serving_row(row) for row in (self.before, self.after)]
        words = [side.words for side in sides if side is not None]
        if len(words) < len(sides):
            return ""
        old, new = words
        return "; ".join(f"{name} {old[name]} -> {new[name]}" for name in old if {old[name], new[name]} != {"n/a"})

    def slower_by(self, percent: float) -> bool:
        """Whether even the quickest run after took longer than the slowest before, by so much."""
        return self.after.low > self.before.high * (1 + percent / 100)


@dataclass(frozen=True)
class Comparison:
    """The measurements that two runs have in common, and those that only one of them has."""

    pairs: tuple[Pair, ...]
    only_before: tuple[Row, ...]
    only_after: tuple[Row, ...]
    environment: tuple[str, ...]


def compare(before: Path, after: Path) -> Comparison:
    """Matches the measured cells of two run folders by all of their parameters, with repeats combined.

    Raises:
        StoreError: A folder holds no measured cell.
    """
    old, new = _measured(before), _measured(after)
    pairs = tuple(Pair(old[key], new[key]) for key in old if key in new)
    return Comparison(
        pairs,
        tuple(row for key, row in old.items() if key not in new),
        tuple(row for key, row in new.items() if key not in old),
        _environment([pair.before for pair in pairs], [pair.after for pair in pairs]),
    )


def _measured(folder: Path) -> dict[str, Row]:
    found = rows(RecordStore(folder).latest().values())
    if not found:
        raise StoreError(f"{folder} holds no measured cell; name the folder that a run wrote by --out")
    return {
        json.dumps(row.first.cell.model_dump(mode="json", exclude={"repeat"}), sort_keys=True): row for row in found
    }


def _environment(before: Sequence[Row], after: Sequence[Row]) -> tuple[str, ...]:
    """The differences other than the code, which a reader must know before relying on a verdict."""
    old, new = (
        {(name, value) for row in side for record in row.records for name, value in record.versions.items()}
        for side in (before, after)
    )
    names = sorted({name for name, _ in old ^ new})
    return tuple(f"{name}: {_values(old, name)} -> {_values(new, name)}" for name in names)


def _values(pairs: set[tuple[str, str]], name: str) -> str:
    return ", ".join(sorted(value for key, value in pairs if key == name)) or "unknown"
