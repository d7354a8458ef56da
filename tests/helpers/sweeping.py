"""Sweeps in a folder of their own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.experiment.cells import Cell
from orchestrator.experiment.experiment import Experiment
from orchestrator.records.store import RecordStore
from orchestrator.run.sweep import SweepOutcome, run_sweep


def sweep_in(folder: Path, experiment: Experiment, cells: Sequence[Cell], **options: Any) -> SweepOutcome:
    """Runs cells of an experiment with their records in a folder."""
    with RecordStore(folder) as store:
        return run_sweep(experiment, cells, store, **options)
