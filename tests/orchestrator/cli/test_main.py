import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from orchestrator.cli import main
from orchestrator.cli.common import ExitCode
from orchestrator.experiment.cells import Cell
from orchestrator.experiment.experiment import Experiment
from orchestrator.records.record import Record, Status
from orchestrator.records.store import RecordStore
from orchestrator.run import sweep
from orchestrator.run.ray_session import ClusterError
from orchestrator.run.sweep import SweepOutcome
from tests.helpers import samples
from tests.helpers.waiting import PATIENCE_S


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "experiment.yaml")


def write(path: Path, **changes: Any) -> Path:
    values = samples.experiment(**{"seq_lens": [128], **changes}).model_dump(mode="json")
    path.write_text(yaml.safe_dump(values))
    return path


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main.app, [str(argument) for argument in arguments])


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    """Replaces the sweep by one that records a good cell for each that it was given and that has none."""
    ran: list[Cell] = []

    def run_sweep(experiment: Experiment, cells: Sequence[Cell], store: RecordStore, **_: Any) -> SweepOutcome:
        known = store.latest()
        for cell in cells:
            if cell.id not in known or known[cell.id].status is not Status.OK:
                ran.append(cell)
                store.append(samples.record(cell))
        latest = store.latest()
        return SweepOutcome(tuple(latest[cell.id] for cell in cells), interrupted=False)

    monkeypatch.setattr(sweep, "run_sweep", run_sweep)
    return ran


def ends_with(monkeypatch: pytest.MonkeyPatch, *records: Record, interrupted: bool = False) -> None:
    def run_sweep(experiment: Experiment, cells: Sequence[Cell], store: RecordStore, **_: Any) -> SweepOutcome:
        for record in records:
            store.append(record)
        return SweepOutcome(records, interrupted)

    monkeypatch.setattr(sweep, "run_sweep", run_sweep)


def raises(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run_sweep(*_: Any, **__: Any) -> SweepOutcome:
        raise error

    monkeypatch.setattr(sweep, "run_sweep", run_sweep)


def test_a_run_records_reports_and_prints_where(file: Path, tmp_path: Path, swept: list[Cell]) -> None:
    done = call("run", file, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert len(swept) == 2
    assert (tmp_path / "out" / "report.html").read_text().startswith("<!doctype html>")
    for expected in ("report.html", "report.md", "online rounds", "mpcache"):
        assert expected in done.output
    (line,) = [line for line in done.output.splitlines() if line.startswith("faster than the full cache")]
    assert line.startswith("faster than the full cache, network none: crypten, mpcache ")
    assert "## When a policy pays" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.slow
def test_the_same_command_again_resumes(file: Path, tmp_path: Path, swept: list[Cell]) -> None:
    call("run", file, "--out", tmp_path / "out")
    assert call("run", file, "--out", tmp_path / "out").exit_code == 0
    assert len(swept) == 2


@pytest.mark.slow
def test_no_resume_runs_all_again_and_keeps_the_old_records(file: Path, tmp_path: Path, swept: list[Cell]) -> None:
    out = tmp_path / "out"
    call("run", file, "--out", out)
    old = (out / "records.jsonl").read_bytes()
    assert call("run", file, "--out", out, "--no-resume").exit_code == 0
    assert len(swept) == 4
    (kept,) = out.glob("records.*Z.jsonl")
    assert kept.read_bytes() == old


def test_a_dry_run_prints_every_cell_with_an_estimate_and_starts_nothing(file: Path, tmp_path: Path) -> None:
    done = call("run", file, "--out", tmp_path / "out", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "sweep" not in done.output
    assert done.output.count("rule of thumb") == 2
    assert "still to run" in done.output
    assert "MB" in done.output
    assert not (tmp_path / "out").exists()


def test_a_dry_run_uses_finished_records(file: Path, tmp_path: Path) -> None:
    with RecordStore(tmp_path / "out") as store:
        store.append(samples.record(samples.cell(seq_lens=[128])))
    done = call("run", file, "--out", tmp_path / "out", "--dry-run")
    assert "done" in done.output
    assert "formula" not in done.output
    again = call("run", file, "--out", tmp_path / "out", "--dry-run", "--no-resume")
    assert "done" not in again.output


@pytest.mark.parametrize("status", [Status.PARTY_DIED, Status.INTERRUPTED, Status.UNSUPPORTED])
def test_a_failed_cell_is_exit_code_1(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: Status
) -> None:
    ends_with(monkeypatch, samples.failure(samples.cell(seq_lens=[128]), status))
    done = call("run", file, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "server is gone; look at dmesg" in done.output
    assert (tmp_path / "out" / "report.html").exists()


def test_an_incorrect_cell_is_exit_code_1(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends_with(monkeypatch, samples.record(samples.cell(seq_lens=[128]), status=Status.INCORRECT))
    assert call("run", file, "--out", tmp_path / "out").exit_code == 1


def test_an_interrupted_run_is_exit_code_130_and_has_its_report(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_with(monkeypatch, samples.record(samples.cell(seq_lens=[128])), interrupted=True)
    assert call("run", file, "--out", tmp_path / "out").exit_code == 130
    assert (tmp_path / "out" / "report.html").exists()


def test_a_run_interrupted_before_its_first_record_is_130(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_with(monkeypatch, interrupted=True)
    assert call("run", file, "--out", tmp_path / "out").exit_code == 130
    raises(monkeypatch, KeyboardInterrupt())
    assert call("run", file, "--out", tmp_path / "out").exit_code == 130


def test_a_bad_experiment_is_exit_code_2_with_all_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("name: x\nmodel: random:tiny-llama\nengnes: [crypten]\nseq_lens: [0]\n")
    done = call("run", path, "--out", tmp_path / "out")
    assert done.exit_code == 2
    for expected in ("engnes", "write engines", "seq_lens[0]", "prompt", "policies"):
        assert expected in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "out").exists()


def test_errors_before_the_start_are_exit_code_2(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swept: list[Cell]
) -> None:
    monkeypatch.setattr("orchestrator.records.store.LOCK_WAIT_S", 0.5)
    with RecordStore(tmp_path / "busy"):
        busy = call("run", file, "--out", tmp_path / "busy")
    raises(monkeypatch, ClusterError("there is no Ray at 10.0.0.1:6379"))
    cluster = call("run", file, "--out", tmp_path / "new", "--address", "10.0.0.1:6379")
    assert [busy.exit_code, cluster.exit_code] == [2, 2]
    assert "another run writes to" in busy.output
    assert "no Ray at 10.0.0.1" in cluster.output


@pytest.mark.slow
def test_corrupt_records_are_reported_and_run_again(file: Path, tmp_path: Path, swept: list[Cell]) -> None:
    call("run", file, "--out", tmp_path / "out")
    path = tmp_path / "out" / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    done = call("run", file, "--out", tmp_path / "out")
    assert done.exit_code == 0
    assert "records.torn" in done.output
    assert len(swept) == 3


def test_report_renders_again_and_prints_the_path(tmp_path: Path) -> None:
    with RecordStore(tmp_path) as store:
        store.append(samples.record())
    done = call("report", tmp_path)
    assert done.exit_code == 0
    assert str(tmp_path / "report.html") in done.output
    assert call("report", tmp_path / "missing").exit_code == 2


def test_the_schema_knows_every_key(tmp_path: Path) -> None:
    schema = json.loads(call("experiment-schema").output)
    assert set(schema["properties"]) == set(Experiment.model_fields)
    assert schema["additionalProperties"] is False


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    code = "import sys, orchestrator.cli.main; print([m for m in ('torch', 'ray', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert done.stdout.strip() == "[]"


def test_help_documents_every_exit_code() -> None:
    text = " ".join(call("--help").output.split())
    for code in ExitCode:
        assert f"{code.value} {code.meaning}" in text
