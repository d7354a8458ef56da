"""A required need that is not met ends the run, with its remedy."""

import os
import subprocess
import sys

import pytest

from tests.helpers.needs import NEEDS, REQUIRE, Need, needs, unmet
from tests.helpers.paths import ROOT


def test_the_reason_of_a_skip_names_what_is_missing_and_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NEEDS, "abacus", Need(lambda: False, "apt-get install abacus"))
    monkeypatch.setitem(NEEDS, "paper", Need(lambda: True, "buy some"))
    mark = needs("abacus", "paper").mark
    assert mark.args == (True,)
    assert mark.kwargs["reason"] == "needs abacus: apt-get install abacus"
    assert needs("paper").mark.args == (False,)
    assert unmet("abacus paper") == ["abacus: apt-get install abacus"]


def test_a_run_with_an_unmet_requirement_ends_before_its_first_test() -> None:
    missing = "gpu" if unmet("gpu") else "no-gpu"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "tests/test_needs.py"],
        env=os.environ | {REQUIRE: f"root {missing}" if os.geteuid() == 0 else missing},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"{missing}: {NEEDS[missing].remedy}" in done.stderr
