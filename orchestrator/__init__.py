"""Experiment files, cells, placement on Ray, the life of a cell, records and their report, the command line.

The programmatic surface:

    from pathlib import Path
    from orchestrator import RecordStore, expand, load_experiment, run_sweep

    experiment = load_experiment(Path("examples/first.yaml"))        # raises ConfigError
    with RecordStore(Path("results")) as store:                      # raises StoreError
        outcome = run_sweep(experiment, expand(experiment), store)   # raises StoreError, ClusterError
    for record in outcome.records:
        print(record.cell, record.status, record.seconds_per_token)  # seconds; None if the cell did not finish

A cell that fails does not raise an exception: its record has a `status` other than `ok`, and an
`error`. These names are imported on first use, so that `import orchestrator` itself is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.experiment.cells import expand
    from orchestrator.experiment.experiment import load_experiment
    from orchestrator.experiment.problems import ConfigError
    from orchestrator.records.store import RecordStore, StoreError
    from orchestrator.run.ray_session import ClusterError
    from orchestrator.run.sweep import run_sweep

__all__ = ["ClusterError", "ConfigError", "RecordStore", "StoreError", "expand", "load_experiment", "run_sweep"]

_MODULES = {
    "ClusterError": "orchestrator.run.ray_session",
    "ConfigError": "orchestrator.experiment.problems",
    "RecordStore": "orchestrator.records.store",
    "StoreError": "orchestrator.records.store",
    "expand": "orchestrator.experiment.cells",
    "load_experiment": "orchestrator.experiment.experiment",
    "run_sweep": "orchestrator.run.sweep",
}


def __getattr__(name: str) -> Any:
    """Import a name of the programmatic surface."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
