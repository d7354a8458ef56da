"""Seconds of local work: from the nearest record, from a calibration of this machine, or by a rule of thumb."""

from dataclasses import dataclass

from orchestrator.experiment.cells import Cell
from orchestrator.experiment.experiment import model_spec
from orchestrator.experiment.link_time import PhaseCost
from orchestrator.predict.calibration import Calibration
from orchestrator.predict.forecast import Forecast
from orchestrator.predict.similar import Example
from parties.engines.fss.cost.speeds import Speeds

CALIBRATION = "calibration"
RULE_OF_THUMB = "rule of thumb"

# Rough figures of a two-core machine: bytes per second, seconds per round. Those of `fss` fit docs/results/sweep.
_ROUGH = {"crypten": (120e6, 1e-3), "fss": (700e6, 0.4e-3)}
_PLAIN_PARAMETERS_PER_SECOND = 1e9
_TYPICAL = Speeds(  # as `cost --calibrate` measured on a core of an AMD EPYC; only their ratios matter
    weight_bytes_per_s=30e9,
    cipher_bytes_per_s=4.3e9,
    comparison_levels_per_s=140e6,
    look_up_bytes_per_s=750e6,
    seconds_per_round=0.25e-3,
)


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
        example: The nearest record; its local seconds are scaled by the local work, or by the bytes that the parties
            handle where there is no dry run.
        calibration: Calibration of this machine's CPU.
    """
    if example is not None and example.counts is not None:
        mine, theirs = _amount(counts, calibration), _amount(example.counts, calibration)
        ratio = mine / theirs if theirs else cell.new_tokens / example.cell.new_tokens
        return LocalWork(example.local_seconds * ratio, example.id)
    if calibration is not None and counts.work is not None and not cell.gpu:
        return LocalWork(calibration.speeds.seconds(counts.work), CALIBRATION)
    return LocalWork(rough_seconds(cell, counts.decode), RULE_OF_THUMB)


def _amount(counts: Forecast, calibration: Calibration | None) -> float:
    """An amount that is in proportion to local seconds."""
    speeds = _TYPICAL if calibration is None else calibration.speeds
    return counts.decode.handled if counts.work is None else speeds.seconds(counts.work)


def rough_seconds(cell: Cell, cost: PhaseCost) -> float:
    """Local work in proportion to bytes and rounds or, of the plain engine, to the model's parameters and tokens."""
    if cell.engine.name == "plain":
        return model_spec(cell.model).parameters / _PLAIN_PARAMETERS_PER_SECOND * cell.new_tokens * cell.batch
    rate, per_round = _ROUGH[cell.engine.name]
    return cost.handled / rate + cost.rounds * per_round
