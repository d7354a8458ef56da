"""A sweep of fake cells: `python sweep_program.py OUT FAULT LENGTH...`. It ends with 3 if interrupted."""

import sys
from pathlib import Path

from orchestrator.experiment.cells import expand
from tests.helpers.fake_cells import FAKE, fake_experiment
from tests.helpers.sweeping import sweep_in

INTERRUPTED = 3

if __name__ == "__main__":
    out, fault, *lengths = sys.argv[1:]
    experiment = fake_experiment(Path(out).parent, fault, seq_lens=[int(length) for length in lengths])
    outcome = sweep_in(Path(out), experiment, expand(experiment), party_class=FAKE)
    sys.exit(INTERRUPTED if outcome.interrupted else 0)
