"""The folder of a Ray of our own goes with its driver, or with the next `clean`."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator import scratch
from orchestrator.cli import app

HOLDER = """
import sys, time
from pathlib import Path
from orchestrator import scratch
scratch.ROOT = Path(sys.argv[1])
with scratch.scratch() as folder:
    (folder / "session").mkdir()
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(scratch, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def driver(root: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    command = [sys.executable, "-c", HOLDER, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_it_goes_with_the_block_even_if_that_fails(root: Path) -> None:
    def interrupted() -> None:
        with scratch.scratch() as folder:
            (folder / "session").mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(root.iterdir()) == []


def test_that_of_a_living_driver_is_left_and_that_of_a_killed_one_removed(
    driver: tuple[subprocess.Popen[str], Path],
) -> None:
    process, folder = driver
    assert scratch.remove_ended() == []
    assert (folder / "session").is_dir()
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    assert scratch.remove_ended() == [f"removed {folder}: its driver is gone"]
    assert not folder.exists()
    assert scratch.remove_ended() == []


def test_folders_that_are_not_known_to_be_ours_are_left(root: Path) -> None:
    strange = root / "mpcbench-of-somebody"
    (strange / "session").mkdir(parents=True)
    elsewhere = root / "elsewhere"
    elsewhere.write_text("")
    (root / "mpcbench-linked").mkdir()
    (root / "mpcbench-linked" / "driver.lock").symlink_to(elsewhere)
    assert scratch.remove_ended() == []
    assert (strange / "session").is_dir()
    assert (root / "mpcbench-linked").is_dir()
    shutil.rmtree(strange)


def test_clean_says_what_it_removed(driver: tuple[subprocess.Popen[str], Path]) -> None:
    process, folder = driver
    process.kill()
    process.wait(30)
    told = CliRunner().invoke(app, ["clean"])
    assert told.exit_code == 0
    assert f"removed {folder}: its driver is gone" in told.output
