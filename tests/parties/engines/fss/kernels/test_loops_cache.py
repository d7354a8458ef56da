"""Compiled loops work without a cache: for a user without a home, or with code that only root may write."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

PROGRAM = """
import numpy as np
from parties.engines.fss.kernels.loops import compiled

@compiled("void(int64[::1])")
def double(numbers):
    for i in range(numbers.shape[0]):
        numbers[i] *= 2

numbers = np.arange(3)
double(numbers)
assert numbers.tolist() == [0, 2, 4]
"""


@pytest.mark.parametrize("home", ["/proc", "~"])
@pytest.mark.slow
def test_a_loop_is_recompiled_if_no_folder_can_be_written(home: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "__pycache__").touch()  # blocks the cache folder
    environment = {key: value for key, value in os.environ.items() if key not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")],
        env=environment | {"HOME": home, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "~").exists()
