"""The bench's own work in the cells: the wall time that a deployment would not have, and where it goes."""

from collections.abc import Sequence
from statistics import median

from orchestrator.records.record import PartyStage, Record
from orchestrator.report.words import duration, share

_CLOCK = "client"
_PROTOCOL = ("online", "offline")
_REST = "processes, links and the rest"


def bench_work(records: Sequence[Record]) -> str:
    """A sentence on it, medians over the measured private cells; empty for records of earlier versions."""
    cells = [_parts(record) for record in records if record.serving is not None and record.cell.engine.name != "plain"]
    if not cells:
        return ""
    shares = sorted(sum(parts.values()) / (sum(parts.values()) + protocol) for protocol, parts in cells)
    found = {name: median(parts[name] for _, parts in cells) for name in cells[0][1]}
    spread = "" if len(shares) == 1 else f" ({share(shares[0])} to {share(shares[-1])})"
    parts = ", ".join(f"{name} {duration(seconds)}" for name, seconds in found.items())
    return f"{share(median(shares))}{spread} of a cell's wall time; medians: {parts}"


def _parts(record: Record) -> tuple[float, dict[str, float]]:
    """Seconds of the protocol, and those of each part of the bench's work, on the clock of the client."""
    own = [stage for stage in record.stages if stage.party == _CLOCK]
    prompt = record.prefill_totals.seconds if record.prefill_totals else 0.0
    protocol = prompt + sum(stage.seconds for stage in own if stage.phase in _PROTOCOL)
    parts = {
        "loading the model": _seconds(own, "bench.load"),
        "masking the weights": sum(stage.seconds for stage in own if stage.phase == "setup"),
        "the referee's prefill": _seconds(own, "bench.prefill"),
        "the check": _seconds(own, "bench.check"),
    }
    whole = (record.finished - record.started).total_seconds()
    return protocol, parts | {_REST: max(0.0, whole - protocol - sum(parts.values()))}


def _seconds(stages: Sequence[PartyStage], name: str) -> float:
    return sum(stage.seconds for stage in stages if stage.stage == name)
