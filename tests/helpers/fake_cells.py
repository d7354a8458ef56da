"""Experiments for the fake party: a tiny model, and the fault in the name of the prompt file."""

from pathlib import Path
from typing import Any

import psutil

from orchestrator.experiment.cells import Cell, expand
from orchestrator.experiment.experiment import Experiment
from tests.helpers.fake_party import FakeParty

FAKE = f"{FakeParty.__module__}:FakeParty"


def fake_experiment(folder: Path, fault: str = "none", **changes: Any) -> Experiment:
    """An experiment of one cell, on `plain` so that it needs no check."""
    prompt = folder / fault
    prompt.write_text("the client's prompt")
    asked = {
        "name": "fake",
        "model": "random:tiny-llama",
        "prompt": {"text_file": str(prompt)},
        "engines": ["plain"],
        "policies": ["full"],
        "networks": ["none"],
        "seq_lens": [16],
        "new_tokens": 1,
        "timeout_s": 300,  # what is slow on a busy machine is not a fault
        "cell_timeout_s": 600,
    }
    return Experiment.model_validate(asked | changes)


def fake_cell(folder: Path, fault: str = "none", **changes: Any) -> Cell:
    """The cell of `fake_experiment`."""
    return expand(fake_experiment(folder, fault, **changes))[0]


def party_processes() -> list[psutil.Process]:
    """The parties' processes below this one."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "PartyActor" in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found
