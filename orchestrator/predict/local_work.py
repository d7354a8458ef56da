"""Seconds of local work: from the nearest record, from a calibration of this machine, or by a rule of thumb."""

from dataclasses import dataclass

from orchestrator.experiment.cells import Cell
from orchestrator.experiment.experiment import model_spec
from orchestrator.experiment.link_time import PhaseCost
from orchestrator.predict.calibration import Calibration
from orchestrator.predict.forecast import Forecast
from orchestrator.predict.similar import Example

CALIBRATION = "calibration"
RULE_OF_THUMB = "rule of thumb"

# Rough figures of a two-core machine: bytes per second, seconds per round.
_ROUGH = {"crypten": (120e6, 1e-3), "fss": (140e6, 0.4e-3)}
_PLAIN_PARAMETERS_PER_SECOND = 1e9


@dataclass(frozen=True)
class LocalWork:
    """Seconds of local work of all tokens, and their source: a record's id, `calibration` or `rule of thumb`."""

    seconds: float
    source: str


def decoding_work(
    cell: Cell, counts: Forecast, example: Example | None = None, calibration: Calibration | None = None
) -> LocalWork:
    """Local work of decoding. A record counts before a calibration, and that before a rule of thumb.

    Args:
        cell: The cell.
        counts: Its counts.
        example: The nearest record; its local seconds are scaled by the bytes that the parties handle.
        calibration: Calibration of this machine's CPU.
    """
    if example is not None and example.counts is not None:
        theirs = example.counts.decode.handled
        ratio = counts.decode.handled / theirs if theirs else cell.new_tokens / example.cell.new_tokens
        return LocalWork(example.local_seconds * ratio, example.id)
    if calibration is not None and counts.work is not None and not cell.gpu:
        return LocalWork(calibration.speeds.seconds(counts.work), CALIBRATION)
    return LocalWork(rough_seconds(cell, counts.decode), RULE_OF_THUMB)


def rough_seconds(cell: Cell, cost: PhaseCost) -> float:
    """Local work in proportion to bytes and rounds or, of the plain engine, to the model's parameters and tokens."""
    if cell.engine.name == "plain":
        return model_spec(cell.model).parameters / _PLAIN_PARAMETERS_PER_SECOND * cell.new_tokens * cell.batch
    rate, per_round = _ROUGH[cell.engine.name]
    return cost.handled / rate + cost.rounds * per_round
