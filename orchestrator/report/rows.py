"""The rows of the report, from the records: one row per measured point, with repeats combined."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from orchestrator.records.record import PartyStage, Record, Totals
from orchestrator.records.series import batch_words, series_name

CLOCKS = ("client", "referee")
"""Whose seconds the report shows: the client's; `plain` runs at the referee alone."""

_STAGE_ORDER = (
    *("embed", "norm", "qkv", "rope", "similarity", "topk", "gather", "scores", "softmax", "attend", "out_proj"),
    *("gate_up", "activation", "down", "lm_head", "argmax", "evict"),
)


@dataclass(frozen=True)
class Row:
    """One measured point. All amounts are per decoded token; with repeats, they are medians.

    Attributes:
        series: Engine and policy, for legends.
        records: The repeats.
        seconds: Decode time, online and offline together.
        low: Shortest of the repeats.
        high: Longest of the repeats.
        online_seconds: Online part of the client's time.
        offline_seconds: Offline part of the client's time.
        client_bytes: Online bytes from client to server.
        server_bytes: Online bytes from server to client.
        offline_bytes: Offline bytes, all parties.
        rounds: Online rounds.
        error: Largest logit error of all repeats; None where nothing was compared.
        match: Whether all greedy tokens of all repeats match; None where nothing was compared.
    """

    series: str
    records: tuple[Record, ...]
    seconds: float
    low: float
    high: float
    online_seconds: float
    offline_seconds: float
    client_bytes: float
    server_bytes: float
    offline_bytes: float
    rounds: float
    error: float | None
    match: bool | None

    @property
    def first(self) -> Record:
        """The first repeat, for all that the repeats have in common."""
        return self.records[0]

    @property
    def seq_len(self) -> int:
        """Tokens of the prompt."""
        return self.first.cell.seq_len

    @property
    def network(self) -> str:
        """Name of the network."""
        return self.first.cell.network.name

    @property
    def batch(self) -> int:
        """Sequences that decode side by side."""
        return self.first.cell.batch

    @property
    def series_of_any_batch(self) -> str:
        """Engine and policy alone."""
        return self.series.removesuffix(batch_words(self.first.cell))

    @property
    def online_bytes(self) -> float:
        """Online bytes, both ways."""
        return self.client_bytes + self.server_bytes

    @property
    def private(self) -> bool:
        """Whether this is a private run, not the `plain` reference."""
        return self.first.cell.engine.name != "plain"

    @property
    def status(self) -> str:
        """`incorrect` if any repeat was."""
        return "incorrect" if any(record.status == "incorrect" for record in self.records) else "ok"


def rows(records: Iterable[Record]) -> list[Row]:
    """One row per measured point, in the order of network, series and length; warm-ups count for nothing."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.status.measured and not record.cell.warmup:
            point = record.cell.model_dump(mode="json", exclude={"repeat"})
            groups.setdefault(json.dumps(point, sort_keys=True), []).append(record)
    several = len({group[0].cell.model for group in groups.values()}) > 1
    found = [_row(group, name_model=several) for group in groups.values()]
    return sorted(found, key=lambda row: (row.network, row.series, row.seq_len))


def _row(records: Sequence[Record], *, name_model: bool) -> Row:
    cell = records[0].cell
    each = [(record.tokens, record.totals, record.seconds_per_token) for record in records]
    totals = [(tokens, total) for tokens, total, _ in each if total is not None]
    seconds = [value for _, _, value in each if value is not None]
    checks = [record.check for record in records if record.check is not None]
    errors = [check.max_abs_logit_error for check in checks]
    return Row(
        series=series_name(cell, name_model=name_model),
        records=tuple(records),
        seconds=median(seconds),
        low=min(seconds),
        high=max(seconds),
        online_seconds=median(total.online.seconds / tokens for tokens, total in totals),
        offline_seconds=median(total.offline.seconds / tokens for tokens, total in totals),
        client_bytes=median(total.online.sent_bytes.get("client", 0) / tokens for tokens, total in totals),
        server_bytes=median(total.online.sent_bytes.get("server", 0) / tokens for tokens, total in totals),
        offline_bytes=median(_offline(total) / tokens for tokens, total in totals),
        rounds=median(total.online.rounds / tokens for tokens, total in totals),
        error=max((error for error in errors if error is not None), default=None) if None not in errors else None,
        match=all(check.tokens_match for check in checks) if checks else None,
    )


def _offline(total: Totals) -> int:
    return sum(total.offline.sent_bytes.values())


@dataclass(frozen=True)
class Ratio:
    """A row against the full cache with the same engine, model, length and network: less than 1 is cheaper."""

    row: Row
    seconds: float | None
    online_bytes: float | None
    offline_bytes: float | None
    rounds: float | None


def against_full(measured: Sequence[Row]) -> list[Ratio]:
    """Every private compressed row that has a row of the full cache to be compared with."""
    full = {_setting(row): row for row in measured if row.first.cell.policy.name == "full" and row.private}
    pairs = [(row, full[_setting(row)]) for row in measured if row not in full.values() and _setting(row) in full]
    return [
        Ratio(
            row,
            _over(row.seconds, base.seconds),
            _over(row.online_bytes, base.online_bytes),
            _over(row.offline_bytes, base.offline_bytes),
            _over(row.rounds, base.rounds),
        )
        for row, base in pairs
    ]


@dataclass(frozen=True)
class Speedup:
    """A row compared with the same measurement with CrypTen, `base`: the factors by which it costs less."""

    row: Row
    base: Row
    seconds: float
    online_bytes: float
    rounds: float


def against_crypten(measured: Sequence[Row]) -> list[Speedup]:
    """Every private row with each row of `crypten` to compare it with; stock randomness is a base only."""
    bases: dict[str, list[Row]] = {}
    for row in measured:
        if row.first.cell.engine.name == "crypten":
            bases.setdefault(_setting(row, "engine"), []).append(row)
    others = [row for row in measured if row.private and row.first.cell.engine.randomness != "stock"]
    return [
        Speedup(row, base, base.seconds / row.seconds, base.online_bytes / row.online_bytes, base.rounds / row.rounds)
        for row in others
        for base in bases.get(_setting(row, "engine"), [])
        if base is not row
    ]


def longest(measured: Sequence[Row]) -> list[Row]:
    """Of each series and network the row of the longest prompt."""
    best: dict[tuple[str, str], Row] = {}
    for row in measured:
        key = (row.network, row.series)
        if key not in best or row.seq_len > best[key].seq_len:
            best[key] = row
    return list(best.values())


def _setting(row: Row, axis: str = "policy") -> str:
    """The values that two rows must have in common to be compared: all but one axis."""
    return json.dumps(row.first.cell.model_dump(mode="json", exclude={"repeat", axis}), sort_keys=True)


def _over(value: float, base: float) -> float | None:
    return value / base if base else None


@dataclass(frozen=True)
class StageRow:
    """One stage of one row on the client's clock, per decoded token; a median over repeats."""

    stage: str
    phase: str
    compute_seconds: float
    blocked_seconds: float
    bytes: float
    rounds: float


def stage_rows(row: Row) -> list[StageRow]:
    """The stages of a row in the order in which a token meets them, without those outside the protocol."""
    clock = next((role for role in CLOCKS if any(s.party == role for s in row.first.stages)), CLOCKS[0])
    names = dict.fromkeys(
        (s.stage, s.phase) for record in row.records for s in record.stages if s.party == clock and _counts(s)
    )
    return [_stage_row(row, clock, stage, phase) for stage, phase in sorted(names, key=_place)]


def _counts(reading: PartyStage) -> bool:
    return reading.phase in ("online", "offline")


def _place(named: tuple[str, str]) -> tuple[bool, int, str]:
    stage, phase = named
    known = _STAGE_ORDER.index(stage) if stage in _STAGE_ORDER else len(_STAGE_ORDER)
    return phase != "online", known, stage


def _stage_row(row: Row, clock: str, stage: str, phase: str) -> StageRow:
    own = [(r.tokens, [s for s in r.stages if (s.party, s.stage) == (clock, stage)]) for r in row.records]
    everyone = [(r.tokens, [s for s in r.stages if s.stage == stage]) for r in row.records]
    return StageRow(
        stage=stage,
        phase=phase,
        compute_seconds=median(sum(max(0.0, s.seconds - s.blocked_seconds) for s in part) / n for n, part in own),
        blocked_seconds=median(sum(s.blocked_seconds for s in part) / n for n, part in own),
        bytes=median(sum(s.sent_bytes for s in part) / n for n, part in everyone),
        rounds=median(sum(s.rounds for s in part) / n for n, part in own),
    )
