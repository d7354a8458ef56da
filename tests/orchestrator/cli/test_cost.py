"""The command `cost`, and its calibration of this machine."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator.cli.common import ExitCode
from orchestrator.cli.main import app
from orchestrator.predict import calibration
from orchestrator.predict.calibration import (
    Calibration,
    CalibrationError,
    calibrate,
    calibration_file,
    known_calibration,
)
from orchestrator.predict.forecast import forecast
from orchestrator.records.store import RecordStore
from parties.engines.fss.cost.speeds import Speeds
from tests.helpers import samples

FILE = """
name: tiny
model: random:tiny-llama
prompt: {{random_tokens: true}}
engines: [{engines}]
policies: [full]
seq_lens: [24]
networks: [none, wan]
new_tokens: 2
repeats: 2
warmup: 1
prefill: {prefill}
"""
SLOW = Speeds(
    weight_bytes_per_s=1e6,
    cipher_bytes_per_s=1e9,
    comparison_levels_per_s=1e9,
    look_up_bytes_per_s=1e9,
    seconds_per_round=1e-9,
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def experiment(folder: Path, engines: str = "fss", prefill: str = "shared") -> Path:
    path = folder / "tiny.yaml"
    path.write_text(FILE.format(engines=engines, prefill=prefill))
    return path


def output_of(*arguments: Any, code: int = ExitCode.OK) -> str:
    result = CliRunner().invoke(app, ["cost", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def rows(text: str, *words: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if all(word in line.split() for word in words)]


def test_every_cell_once_with_exact_counts_and_the_source_of_its_seconds(tmp_path: Path) -> None:
    text = output_of(experiment(tmp_path, "plain, crypten, fss"))
    assert len(rows(text, "fss", "exact")) == len(rows(text, "crypten", "estimate")) == 2
    cost = forecast(samples.cell(engines=["fss"], policies=["full"], seq_lens=[24])).decode
    assert all(f"{cost.rounds / 2:g}" in row for row in rows(text, "fss", "token"))
    tokens = rows(text, "fss", "full", "token") + rows(text, "crypten", "token")
    assert all(row[-3:] == ["rule", "of", "thumb"] for row in tokens)
    assert len(rows(text, "fss", "full", "24", "GB")) == 1, "one row of memory, whatever the network"
    assert "--calibrate" in text


def test_stages_are_printed_byte_by_byte_for_what_is_exact(tmp_path: Path) -> None:
    text = output_of(experiment(tmp_path, "crypten, fss", "mpc"), "--stages")
    found = forecast(samples.cell(engines=["fss"], policies=["full"], seq_lens=[24], prefill="mpc"))
    for cost in (found.prefill, found.decode):
        assert cost is not None
        for stage in cost.stages:
            assert rows(text, stage.stage, f"{stage.sent['client']:,}", f"{stage.sent['server']:,}")
    assert text.count("fss full 24 tokens") == 1, "networks change nothing about stages"
    assert "crypten full 24 tokens" not in text


def test_a_calibration_is_kept_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "measure", lambda: SLOW)
    path = experiment(tmp_path)
    assert '"weight_bytes_per_s": 1000000.0' in output_of("--calibrate")
    text = output_of(path)
    work = forecast(samples.cell(engines=["fss"], policies=["full"], seq_lens=[24])).work
    assert work is not None
    seconds = f"{work.weight_bytes / 1e6 / 2:.3g}"
    assert rows(text, "fss", "none", seconds, "calibration")
    assert "rule of thumb" not in text


def test_compute_is_taken_from_records_of_past_runs(tmp_path: Path) -> None:
    path = experiment(tmp_path)
    cell = samples.cell(engines=["fss"], policies=["full"], seq_lens=[24])
    with RecordStore(tmp_path / "run") as store:
        store.append(samples.record(cell, seconds=7.0))
    text = output_of(path, "--records", tmp_path / "run")
    assert rows(text, "fss", "none", "7", cell.id)


def test_measured_speeds_are_positive_and_survive_a_round_trip() -> None:
    made = calibrate()
    assert known_calibration() == made
    assert min(vars(made.speeds).values()) > 0
    assert calibration_file().stat().st_size > 0


def test_without_a_calibration_there_is_none() -> None:
    assert known_calibration() is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"cpu": "x"}', "\xff"])
def test_a_damaged_calibration_is_named_with_the_fix(tmp_path: Path, text: str) -> None:
    calibration_file().parent.mkdir(parents=True)
    calibration_file().write_text(text, encoding="latin-1")
    message = output_of(experiment(tmp_path), code=ExitCode.BAD_INPUT)
    assert str(calibration_file()) in message
    assert "--calibrate" in message


def test_impossible_speeds_are_refused() -> None:
    values = {"measured": samples.START, "cpu": "x", **vars(SLOW)}
    for name in vars(SLOW):
        with pytest.raises(ValueError, match=name):
            Calibration.model_validate({**values, name: 0.0})


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.setattr(calibration, "measure", lambda: SLOW)
    with pytest.raises(CalibrationError, match="XDG_CACHE_HOME"):
        calibrate()


def test_a_user_without_a_home_has_no_calibration_and_the_error_names_where_to_keep_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    assert known_calibration() is None
    with pytest.raises(CalibrationError, match="set HOME, or XDG_CACHE_HOME"):
        calibrate()


@pytest.mark.parametrize("arguments", [[], ["missing.yaml"]])
def test_no_file_or_a_wrong_one_is_bad_input(arguments: list[str]) -> None:
    assert output_of(*arguments, code=ExitCode.BAD_INPUT)


def test_an_unusable_folder_of_records_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("no run")
    assert "notes" in output_of(experiment(tmp_path), "--records", tmp_path / "notes", code=ExitCode.BAD_INPUT)


def test_heads_that_cannot_be_read_here_are_named_and_a_dry_run_for_a_cluster_continues(tmp_path: Path) -> None:
    path = experiment(tmp_path)
    path.write_text(path.read_text().replace("[full]", "[{name: locret, head: /nowhere/x.safetensors}]"))
    assert "/nowhere/x.safetensors" in output_of(path, code=ExitCode.BAD_INPUT)
    dry_run = ["run", str(path), "--out", str(tmp_path / "run"), "--dry-run"]
    here = CliRunner().invoke(app, dry_run)
    assert here.exit_code == ExitCode.BAD_INPUT
    assert "/nowhere/x.safetensors" in here.output
    planned = CliRunner().invoke(app, [*dry_run, "--address", "192.0.2.1:6379"])
    assert planned.exit_code == ExitCode.OK, planned.output
    assert "n/a" in planned.output


def test_it_says_from_which_length_a_policy_pays(tmp_path: Path) -> None:
    path = experiment(tmp_path)
    path.write_text(path.read_text().replace("policies: [full]", "policies: [full, h2o]"))
    plain, output = output_of(path), output_of(path, "--pays")
    assert "faster than" not in plain
    for words in ("faster than", "fss, h2o", "predicted"):
        assert words in output
