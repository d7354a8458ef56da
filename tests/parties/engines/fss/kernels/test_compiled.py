"""The folder of compiled code: safe, the user's own, and not needed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from parties.engines.fss.kernels.compiled import VARIABLE, UnsafeFolder, code_folder
from parties.engines.fss.recording.warm_up import TRITON_FOLDER, compile_all
from tests.helpers.paths import ROOT
from tests.helpers.waiting import PATIENCE_S

PROGRAM = """
import numpy as np
from parties.engines.fss.kernels.compiled import code_folder, compiled

@compiled("void(int64[::1])")
def double(numbers):
    for i in range(numbers.shape[0]):
        numbers[i] *= 2

numbers = np.arange(3)
double(numbers)
assert numbers.tolist() == [0, 2, 4]
print(code_folder(), sum(double.stats.cache_hits.values()))
"""


def run(folder: Path, **environment: str) -> list[str]:
    """The folder of compiled code in a fresh process, and the functions that were loaded from it."""
    (folder / "program.py").write_text(PROGRAM)
    inherited = {key: value for key, value in os.environ.items() if key not in ("XDG_CACHE_HOME", VARIABLE)}
    done = subprocess.run(
        [sys.executable, str(folder / "program.py")],
        env=inherited | {"PYTHONPATH": str(ROOT)} | environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (folder / "~").exists()
    return done.stdout.split()


@pytest.mark.slow
def test_a_second_process_loads_what_the_first_has_compiled(tmp_path: Path) -> None:
    assert run(tmp_path, HOME=str(tmp_path)) == [str(tmp_path / ".cache/mpcache-bench/compiled"), "0"]
    assert run(tmp_path, HOME=str(tmp_path))[1] == "1"


@pytest.mark.parametrize("home", ["~"])
@pytest.mark.slow
def test_without_a_home_code_lies_in_a_private_temporary_folder(home: str, tmp_path: Path) -> None:
    folder, _ = run(tmp_path, HOME=home, TMPDIR=str(tmp_path))
    assert Path(folder).parent == tmp_path
    assert Path(folder).stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_without_any_folder_each_process_compiles(tmp_path: Path) -> None:
    (tmp_path / f"mpcache-bench-{os.geteuid()}").touch()
    assert run(tmp_path, HOME="/proc", TMPDIR=str(tmp_path)) == ["None", "0"]


def test_a_folder_that_others_can_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, link = tmp_path / "shared", tmp_path / "link"
    shared.mkdir()
    shared.chmod(0o777)
    link.symlink_to(tmp_path)
    for folder, problem in (
        (shared, "others than its owner"),
        (link, "a link"),
        (Path("/proc/x"), "cannot be written"),
    ):
        monkeypatch.setenv(VARIABLE, str(folder))
        with pytest.raises(UnsafeFolder, match=problem):
            code_folder.__wrapped__()


def test_the_variable_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "own"))
    assert code_folder.__wrapped__() == tmp_path / "own"
    assert (tmp_path / "own").stat().st_mode & 0o077 == 0


def test_triton_keeps_its_code_beside_unless_the_user_names_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRITON_FOLDER, "own")
    compile_all()
    assert os.environ[TRITON_FOLDER] == "own"
    monkeypatch.delenv(TRITON_FOLDER)
    compile_all()
    folder = code_folder()
    assert folder is not None
    assert Path(os.environ[TRITON_FOLDER]) == folder / "triton"
    assert (folder / "triton").stat().st_mode & 0o077 == 0
