"""From which prompt length a policy is faster than the full cache: measured where cells are, predicted beyond."""

import json
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from orchestrator.experiment.cells import Cell
from orchestrator.experiment.experiment import model_spec
from orchestrator.predict.calibration import Calibration
from orchestrator.predict.forecast import has_model
from orchestrator.predict.prediction import predict
from orchestrator.records.pays import Curve, Point
from orchestrator.records.record import Record
from orchestrator.records.series import series_name

SHORTEST, LONGEST = 128, 32_768
"""Shortest and longest length that is predicted; a model may end before, and an experiment begin."""

_FULL = "full"


def curves(
    cells: Iterable[Cell], past: Iterable[Record] = (), calibration: Calibration | None = None
) -> tuple[Curve, ...]:
    """A curve for each private policy and setting whose full cache is among the cells, too.

    Measured lengths come from `past`. Beyond them, or from the shortest length of the cells on where nothing was
    measured, powers of two are predicted, up to the model's last position.

    Args:
        cells: The cells of an experiment or of a run.
        past: Records; those of a cell's measurement count as measured, and predictions start from them.
        calibration: Calibration of this machine, for predictions without a similar record.
    """
    seconds = _Seconds(past, calibration)
    groups: dict[str, dict[str, list[Cell]]] = {}
    for cell in cells:
        if cell.engine.name != "plain":
            groups.setdefault(_setting(cell), {}).setdefault(str(cell.policy), []).append(cell)
    several = len({group[_FULL][0].model for group in groups.values() if _FULL in group}) > 1
    found = []
    for group in groups.values():
        for policy, own in group.items():
            if _FULL in group and policy != _FULL and (points := _points(own[0], own, group[_FULL], seconds)):
                name = series_name(own[0], name_model=several)
                found.append(Curve(series=name, network=own[0].network.name, points=points))
    return tuple(found)


class _Seconds:
    """Seconds per token of a cell at any length: a median of its records, or a prediction that starts from them."""

    def __init__(self, past: Iterable[Record], calibration: Calibration | None) -> None:
        runs: dict[str, list[Record]] = {}
        for record in past:
            if record.status.measured and not record.cell.warmup:
                timed = record.model_copy(update={"seconds_per_token": record.token_latency})
                runs.setdefault(_measurement(record.cell), []).append(timed)
        self._medians = {key: median(r.seconds_per_token or 0.0 for r in records) for key, records in runs.items()}
        self._typical = [sorted(own, key=lambda r: r.seconds_per_token or 0.0)[len(own) // 2] for own in runs.values()]
        self._calibration = calibration

    def measured(self, cell: Cell) -> float | None:
        """The median of the repeats."""
        return self._medians.get(_measurement(cell))

    def predicted(self, cell: Cell) -> float | None:
        """By the cost model; None where it cannot count this cell."""
        one = cell.model_copy(update={"new_tokens": 1})
        expected = predict(one, self._typical, self._calibration, most=1)
        return None if expected.counts is None else expected.seconds_per_token


def _points(cell: Cell, own: Sequence[Cell], full: Sequence[Cell], seconds: _Seconds) -> tuple[Point, ...]:
    """The measured points, and predicted ones from the longest of them on."""
    base = full[0]
    lengths = sorted({each.seq_len for each in own} & {each.seq_len for each in full})
    found = [
        Point(seq_len=n, seconds=mine, full_seconds=theirs, measured=True)
        for n in lengths
        if (mine := seconds.measured(_at(cell, n))) and (theirs := seconds.measured(_at(base, n)))
    ]
    for n in _unmeasured(cell, lengths, found[-1].seq_len if found else 0):
        mine, theirs = seconds.predicted(_at(cell, n)), seconds.predicted(_at(base, n))
        if mine and theirs:
            found.append(Point(seq_len=n, seconds=mine, full_seconds=theirs, measured=False))
    return tuple(found)


def _unmeasured(cell: Cell, lengths: Sequence[int], measured: int) -> list[int]:
    """Lengths to predict beyond the longest measured one, 0 without one: the cells' own, powers of two, the longest."""
    if not lengths or not has_model(cell):
        return []
    most = min(model_spec(cell.model).max_positions, LONGEST) - cell.new_tokens
    powers = [1 << power for power in range(SHORTEST.bit_length() - 1, LONGEST.bit_length())]
    shortest = max(measured + 1, lengths[0])
    return sorted({n for n in (*lengths, *powers, most) if shortest <= n <= most})


def _at(cell: Cell, seq_len: int) -> Cell:
    return cell.model_copy(update={"seq_len": seq_len})


def _setting(cell: Cell) -> str:
    """All that cells of a curve and of its full cache have in common."""
    return _key(cell, "policy", "seq_len")


def _measurement(cell: Cell) -> str:
    return _key(cell)


def _key(cell: Cell, *without: str) -> str:
    values: Mapping[str, object] = cell.model_dump(mode="json", exclude={"repeat", "warmup", *without})
    return json.dumps(values, sort_keys=True)
