"""Records of a run become committed ones: those of the example that are ok, without a path of the machine."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.results.add import NEUTRAL, add
from orchestrator.experiment.cells import Cell, expand
from orchestrator.experiment.experiment import load_experiment
from orchestrator.records.record import Record, Status
from orchestrator.records.snapshot import EXPERIMENT, Snapshot
from orchestrator.records.store import RecordStore
from tests.helpers.paths import ROOT
from tests.helpers.samples import failure, record

NAME = "speedup"


def run_of(folder: Path, *records: Record) -> Path:
    example = load_experiment(ROOT / "examples" / f"{NAME}.yaml")
    with RecordStore(folder) as store:
        Snapshot(store, example, expand(example))
        for each in records:
            store.append(each)
    return folder


def cells() -> tuple[Cell, ...]:
    return expand(load_experiment(ROOT / "examples" / f"{NAME}.yaml"))


def test_ok_records_of_the_example_stay_and_name_no_path_of_the_machine(tmp_path: Path) -> None:
    first, second, third, *_ = cells()
    longer = third.model_copy(update={"seq_len": 999})
    run = run_of(tmp_path / "run", record(first), failure(second, Status.OOM), record(longer))
    left_out = add(run, NAME, tmp_path)
    assert [each.cell for each in left_out] == [second, longer]
    folder = tmp_path / NAME
    (kept,) = RecordStore(folder).latest().values()
    assert kept.cell.prompt.text_file == f"{NEUTRAL}prompts/article.txt"
    assert kept.id == kept.cell.id != first.id
    assert kept.totals == record(first).totals
    assert (folder / "report.md").exists()
    assert not [path.name for path in folder.glob("*.*") if str(ROOT).encode() in path.read_bytes()]
    assert NEUTRAL in (folder / EXPERIMENT).read_text()


def test_a_run_replaces_the_former_one(tmp_path: Path) -> None:
    first, second, *_ = cells()
    for number, cell in enumerate((first, second)):
        add(run_of(tmp_path / f"run-{number}", record(cell)), NAME, tmp_path)
    assert [each.cell.engine for each in RecordStore(tmp_path / NAME).read()] == [second.engine]


def test_another_prompt_and_a_run_without_results_are_refused(tmp_path: Path) -> None:
    first, *_ = cells()
    other = first.model_copy(update={"prompt": first.prompt.model_copy(update={"text_file": "/home/me/letter.txt"})})
    with pytest.raises(ValueError, match=r"letter\.txt"):
        add(run_of(tmp_path / "other", record(other)), NAME, tmp_path)
    with pytest.raises(ValueError, match=r"no ok record of examples/speedup\.yaml"):
        add(run_of(tmp_path / "failed", failure(first)), NAME, tmp_path)
    assert not (tmp_path / NAME).exists()


def test_the_command_says_why_it_adds_nothing(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "benchmarks.results.add", str(tmp_path), NAME]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "holds no ok record of examples/speedup.yaml" in done.stderr
