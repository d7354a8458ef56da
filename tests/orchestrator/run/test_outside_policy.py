"""A policy from outside the package in a run: every party's own process imports it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.records.store import RecordStore
from tests.helpers.paths import ROOT
from tests.helpers.waiting import PATIENCE_S

FOLDER = ROOT / "examples/policies"


@pytest.mark.ray
def test_the_example_runs_and_is_recorded_under_its_full_name(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "orchestrator.cli.main", "run", str(FOLDER / "latest_tokens.yaml")]
    path = os.pathsep.join([str(ROOT), str(FOLDER)])
    only = ["--only", "engine=fss policy=latest_tokens:LatestTokens", "--out", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [*command, *only],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = RecordStore(tmp_path / "out").read()
    assert (record.status, record.cell.policy.name) == ("ok", "latest_tokens:LatestTokens")
    assert "latest_tokens:LatestTokens" in (tmp_path / "out/report.csv").read_text()
