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

from orchestrator.cli.main import app
from orchestrator.run import scratch
from tests.helpers.waiting import PATIENCE_S

HOLDER = """
import sys, time
from pathlib import Path
from orchestrator.run import scratch
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


def test_the_folder_is_removed_after_the_block_even_if_that_fails(root: Path) -> None:
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
    process.wait(PATIENCE_S)
    assert scratch.remove_ended() == [f"removed {folder}: its driver is gone"]
    assert not folder.exists()
    assert scratch.remove_ended() == []


def test_unknown_folders_are_left(root: Path) -> None:
    strange = left_over(root, "mpcbench-of-somebody")
    other = root / "mpcbench-abcdefgh"
    (other / "certificates").mkdir(parents=True)
    elsewhere = root / "elsewhere"
    elsewhere.write_text("")
    (root / "mpcbench-linked").mkdir()
    (root / "mpcbench-linked" / "driver.lock").symlink_to(elsewhere)
    assert scratch.remove_ended() == []
    assert strange.is_dir()
    assert other.is_dir()
    assert (root / "mpcbench-linked").is_dir()
    shutil.rmtree(strange)


def left_over(root: Path, name: str = "mpcbench-abc_12de") -> Path:
    """A folder that Ray wrote while it was removed: without a lock."""
    folder = root / name
    (folder / "session_2026-01-01" / "logs").mkdir(parents=True)
    return folder


def test_a_folder_that_lost_its_lock_is_removed_once_no_process_uses_it(root: Path) -> None:
    folder = left_over(root)
    with subprocess.Popen([sys.executable, "-c", "input()", f"--temp-dir={folder}"], stdin=subprocess.PIPE) as user:
        assert scratch.remove_ended() == []
        assert folder.exists()
        user.kill()
    assert scratch.remove_ended() == [f"removed {folder}: its driver is gone"]
    assert not folder.exists()


def test_a_folder_that_cannot_be_removed_keeps_its_lock_and_is_found_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(scratch, "_SETTLE_S", 0.0)
        with scratch.scratch() as folder:
            (folder / "session_1").mkdir()
            patch.setattr(shutil, "rmtree", lambda *_, **__: None)
    assert sorted(entry.name for entry in folder.iterdir()) == ["driver.lock", "session_1"]
    assert scratch.remove_ended() == [f"removed {folder}: its driver is gone"]
    assert list(root.iterdir()) == []


def test_clean_lists_what_it_removed(driver: tuple[subprocess.Popen[str], Path]) -> None:
    process, folder = driver
    process.kill()
    process.wait(PATIENCE_S)
    result = CliRunner().invoke(app, ["clean"])
    assert result.exit_code == 0
    assert f"removed {folder}: its driver is gone" in result.output
