"""The Python API of `orchestrator`, and the notebook that reads a report."""

import json
import os
import subprocess
import sys
from pathlib import Path

import orchestrator
from tests.helpers.paths import ROOT

NOTEBOOK = ROOT / "examples/report.ipynb"


def test_every_name_is_there_and_the_import_alone_is_light() -> None:
    code = "import sys, orchestrator; print([m for m in ('torch', 'ray', 'pydantic', 'typer') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    for name in orchestrator.__all__:
        assert getattr(orchestrator, name).__name__ == name


def test_an_experiment_is_loaded_expanded_and_its_records_are_read() -> None:
    experiment = orchestrator.load_experiment(ROOT / "examples/first.yaml")
    assert len(orchestrator.expand(experiment)) > 0
    records = orchestrator.RecordStore(ROOT / "docs/results/speedup").read()
    assert {record.status for record in records} == {"ok"}


def test_the_notebook_runs_and_draws(tmp_path: Path) -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    program = f"{code}\nfigure.savefig({str(tmp_path / 'figure.png')!r})\n"
    environment = {**os.environ, "MPLBACKEND": "agg", "MPLCONFIGDIR": str(tmp_path)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=NOTEBOOK.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "figure.png").stat().st_size > 5_000
    assert not any(cell.get("outputs") for cell in cells), "outputs are not committed"
