"""How long the local work of a cell takes: from a similar cell that was measured, or from a calibration."""

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.experiment.cells import Cell
from orchestrator.predict.calibration import Calibration
from orchestrator.predict.forecast import Forecast, forecast, network_seconds
from orchestrator.records.record import Record


@dataclass(frozen=True)
class Compute:
    """Seconds of local work for all tokens of a cell, and where they come from: `calibration`, or a record's id."""

    seconds: float
    source: str


def compute(cell: Cell, past: Iterable[Record] = (), calibration: Calibration | None = None) -> Compute | None:
    """Local work of decoding; None where nothing was measured that would tell.

    A record counts before a calibration: what is left of its seconds without its links, scaled by the bytes that the
    parties handle. Of records with the same engine, model, argmax and comparison, one of the same policy and the
    nearest length is taken, and of those the one whose links take the least.

    Args:
        cell: The cell.
        past: Records to learn from.
        calibration: Of this machine.
    """
    own = forecast(cell)
    if similar := [record for record in past if record.status.measured and _same_setting(record.cell, cell)]:
        best = min(similar, key=lambda record: _distance(record.cell, cell))
        return Compute(_left(best) * _ratio(own, forecast(best.cell)), best.id)
    if calibration is not None and own.work is not None:
        return Compute(calibration.speeds.seconds(own.work), "calibration")
    return None


def _left(record: Record) -> float:
    """Seconds of all tokens that the links do not explain."""
    passed = (record.seconds_per_token or 0.0) * record.tokens
    return max(0.0, passed - network_seconds(forecast(record.cell).decode, record.cell))


def _ratio(own: Forecast, theirs: Forecast) -> float:
    return own.decode.handled / theirs.decode.handled if theirs.decode.handled else 1.0


def _same_setting(past: Cell, cell: Cell) -> bool:
    return all(
        getattr(past, name) == getattr(cell, name) for name in ("engine", "model", "argmax", "gpu", "comparison")
    )


def _distance(past: Cell, cell: Cell) -> tuple[bool, int, float]:
    return past.policy != cell.policy, abs(past.seq_len - cell.seq_len), network_seconds(forecast(past).decode, past)
