"""A Ray of our own that does not start: the error, and that nothing is left behind; no Ray is started."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray._private import services

from orchestrator.run import ray_session as session
from orchestrator.run import scratch
from orchestrator.run.ray_session import ClusterError, ray_session
from tests.helpers.waiting import PATIENCE_S

WRITER = """
import sys, time
from pathlib import Path
folder = Path(sys.argv[1]) / "session_of_a_test"
while True:
    folder.mkdir(exist_ok=True)
    (folder / "log").write_text("still here")
    time.sleep(0.01)
"""


class Starts:
    """Replaces `ray.init`: leaves a process that writes to Ray's folder, and fails `failures` times."""

    def __init__(self) -> None:
        self.failures = 0
        self.folders: list[Path] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def __call__(self, **options: Any) -> None:
        folder = Path(options["_temp_dir"])
        self.folders.append(folder)
        self.processes.append(services.ConsolePopen([sys.executable, "-c", WRITER, str(folder)]))
        if len(self.folders) <= self.failures:
            raise Exception("The current node timed out during startup. This could\nhave many causes.")  # noqa: TRY002


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(scratch, "ROOT", tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tmp_path


@pytest.fixture
def starts(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Starts]:
    starts = Starts()
    monkeypatch.setattr(ray, "init", starts)
    yield starts
    for process in starts.processes:
        process.wait(PATIENCE_S)


def test_a_second_start_may_succeed_and_leaves_nothing_of_the_first(root: Path, starts: Starts) -> None:
    starts.failures = 1
    with ray_session(None):
        first, second = starts.folders
        assert starts.processes[0].poll() is not None
        assert list(root.iterdir()) == [second]
        assert (second / "auth_token").stat().st_mode & 0o077 == 0
    assert first != second
    assert list(root.iterdir()) == []


def test_ray_that_never_starts_is_one_message_and_no_folder(root: Path, starts: Starts) -> None:
    starts.failures = 9
    expected = r"Ray could not start on this machine within \d+ s: The current node timed out .*could; is it busy\?"
    with pytest.raises(ClusterError, match=expected) as error, ray_session(None):
        pytest.fail("there is no Ray")
    assert "\n" not in str(error.value)
    assert "CPUs" in str(error.value)
    assert len(starts.folders) == session._STARTS
    assert [process.poll() is None for process in starts.processes] == [False, False]
    assert list(root.iterdir()) == []


def test_rays_processes_are_out_of_reach_of_signals_to_the_drivers_group(starts: Starts) -> None:
    """`timeout`, systemd and a terminal's Ctrl-C signal the whole group."""
    with ray_session(None):
        assert os.getpgid(starts.processes[0].pid) != os.getpgid(0)
    plain = services.ConsolePopen([sys.executable, "-c", ""])
    assert os.getpgid(plain.pid) == os.getpgid(0)
    plain.wait()


def test_a_process_whose_command_line_is_not_there_yet_is_ended(
    root: Path, starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a moment after a program is executed."""
    cmdline, empty = psutil.Process.cmdline, iter([True, True])
    monkeypatch.setattr(psutil.Process, "cmdline", lambda process: [] if next(empty, False) else cmdline(process))
    starts.failures = 9
    with pytest.raises(ClusterError), ray_session(None):
        pytest.fail("there is no Ray")
    # ended and reaped, so that no status is left; one that outlives its folder exits with 1
    assert [process.wait(PATIENCE_S) for process in starts.processes] == [0, 0]
