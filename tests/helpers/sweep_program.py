"""A sweep of fake cells: `python sweep_program.py OUT FAULT LENGTH...`. It ends with 3 if interrupted."""

import sys
from pathlib import Path

from orchestrator.experiment.cells import expand
from orchestrator.run.sweep import run_sweep
from tests.helpers.fake_cells import FAKE, fake_experiment

INTERRUPTED = 3

if __name__ == "__main__":
    out, fault, *lengths = sys.argv[1:]
    experiment = fake_experiment(Path(out).parent, fault, seq_lens=[int(length) for length in lengths])
    outcome = run_sweep(experiment, expand(experiment), Path(out), party_class=FAKE)
    sys.exit(INTERRUPTED if outcome.interrupted else 0)
