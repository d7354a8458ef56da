"""A whole sweep, which leaves records and nothing else behind."""

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import ray
from rich.console import Console

from orchestrator.experiment.cells import Cell, expand
from orchestrator.records.assemble import build_record, failed_record
from orchestrator.records.record import Record, Status
from orchestrator.records.store import RecordStore
from orchestrator.run import ray_address
from orchestrator.run.placement import ROLES
from orchestrator.run.ray_session import ClusterError, ray_session
from orchestrator.run.sweep import stop_on_signals
from tests.helpers import samples, sweep_program
from tests.helpers.fake_cells import FAKE, fake_experiment
from tests.helpers.fake_party import REACHED
from tests.helpers.paths import HELPERS, ROOT
from tests.helpers.sweeping import sweep_in
from tests.helpers.waiting import PATIENCE_S, wait_until

pytestmark = [
    pytest.mark.ray,
    # Ray leaves its own sockets and log files to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def quiet() -> Console:
    return Console(file=io.StringIO())


def ok_record(cell: Cell) -> Record:
    results = samples.reported({"referee": samples.result("referee", tokens=1, seconds=1.0)})
    return build_record(cell, results, (), NOW, NOW, experiment="fake")


def test_a_sweep_runs_pending_cells_and_leaves_only_records(tmp_path: Path) -> None:
    out = tmp_path / "out"
    experiment = fake_experiment(tmp_path, seq_lens=[16, 17, 18])
    done, cut, new = expand(experiment)
    with RecordStore(out) as store:
        store.append(ok_record(done))
        store.append(
            failed_record(cut, {"status": "interrupted", "message": "stopped"}, (), NOW, NOW, experiment="fake")
        )
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    console = quiet()
    outcome = sweep_in(out, experiment, [done, cut, new], console=console, party_class=FAKE)
    assert not outcome.interrupted
    assert [(record.id, record.status) for record in outcome.records] == [
        (cell.id, Status.OK) for cell in (done, cut, new)
    ]
    assert outcome.records[0].started == NOW  # it was not run again
    assert [record.id for record in RecordStore(out).read()] == [done.id, cut.id, cut.id, new.id]
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= before
    assert not ray.is_initialized()
    assert not (out / "targets.json").exists()
    assert isinstance(console.file, io.StringIO)
    assert "[2/2]" in console.file.getvalue()


def test_a_finished_sweep_starts_nothing(tmp_path: Path) -> None:
    experiment = fake_experiment(tmp_path)
    (cell,) = expand(experiment)
    with RecordStore(tmp_path / "out") as store:
        store.append(ok_record(cell))
    outcome = sweep_in(tmp_path / "out", experiment, [cell], address="127.0.0.1:1", party_class=FAKE)
    assert [record.status for record in outcome.records] == [Status.OK]


def test_a_ray_that_runs_already_is_left_alone_and_a_cell_that_must_fail_as_one_before_it_did_is_not_run(
    tmp_path: Path,
) -> None:
    experiment = fake_experiment(tmp_path, "prompterror-referee-loading", repeats=2)
    console = quiet()
    with ray_session(None):
        address = ray.get_runtime_context().gcs_address
        outcome = sweep_in(tmp_path / "out", experiment, expand(experiment), console=console, party_class=FAKE)
        assert ray.is_initialized()
        assert ray.get_runtime_context().gcs_address == address
    first, second = (record.error for record in outcome.records)
    assert first is not None
    assert second is not None
    assert (first.status, first.role) == (Status.CONFIG_ERROR, "referee")
    assert second.message == f"not run, since a cell before it failed of the same cause: {first.message}"
    assert isinstance(console.file, io.StringIO)
    assert "[2/2]" in console.file.getvalue()


def test_a_ray_of_our_own_needs_no_home_and_leaves_no_folder_and_no_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc")  # where not even root can write
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    with ray_session(None):
        folder = Path(ray._private.worker._global_node.get_temp_dir_path())
        assert folder.is_dir()
        with grpc.insecure_channel(ray.get_runtime_context().gcs_address) as stranger:
            ask = stranger.unary_unary(ray_address._QUESTION)
            with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
                ask(b"", timeout=PATIENCE_S)
    assert not folder.exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_address_without_a_cluster_is_an_error_at_once() -> None:
    with pytest.raises(ClusterError, match=r"no Ray cluster at 127\.0\.0\.1:1 .*ray up"), ray_session("127.0.0.1:1"):
        pass
    assert not ray.is_initialized()


class Program:
    """A sweep in a process group of its own, as a shell would start it."""

    def __init__(self, out: Path, fault: str, *lengths: int) -> None:
        command = [sys.executable, str(HELPERS / "sweep_program.py"), str(out), fault, *map(str, lengths)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.out = out
        self.hanging = out.with_name(f"{fault}{REACHED}")
        self.process = subprocess.Popen(
            command, start_new_session=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.descendants: set[psutil.Process] = set()
        self.ray_folders: set[Path] = set()

    def note_descendants(self) -> None:
        """Records the descendants of this program, and the folder of its own Ray."""
        self.descendants |= set(psutil.Process(self.process.pid).children(recursive=True))
        for process in self.descendants:
            with contextlib.suppress(psutil.Error):
                match = re.search(r"(/tmp/mpcbench-[^/\s]+)/session_", " ".join(process.cmdline()))
                self.ray_folders |= {Path(match.group(1))} if match else set()

    def wait_for_parties(self) -> None:
        """Waits until the second cell hangs: the first is recorded and the parties' exporters are announced."""
        wait_until(lambda: self.process.poll() is not None or self.hanging.exists())
        assert self.process.poll() is None, self.output()
        self.note_descendants()

    def records(self) -> tuple[Record, ...]:
        return RecordStore(self.out).read()

    def output(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.read().decode()

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)

    def living(self, ignored: tuple[str, ...] = ()) -> list[str]:
        """Names of the processes that do not end in time, except those of `ignored`."""
        waited = [process for process in self.descendants if not set(ignored) & set(_words(process))]
        _, alive = psutil.wait_procs(waited, timeout=PATIENCE_S)
        return [" ".join(words) for words in map(_words, alive) if words]


def _words(process: psutil.Process) -> list[str]:
    """The command line of a process; empty once it has ended."""
    try:
        return " ".join(process.cmdline()).split()
    except psutil.NoSuchProcess:
        return []


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """A sweep whose first cell (16 tokens) runs through and whose second hangs."""
    program = Program(tmp_path / "out", "second-server-decode", 16, 17, 18)
    yield program
    with contextlib.suppress(psutil.NoSuchProcess):
        program.note_descendants()
    everyone: list[Any] = [*program.descendants, program.process]
    for process in everyone:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    program.process.wait(PATIENCE_S)
    for folder in program.ray_folders:
        shutil.rmtree(folder, ignore_errors=True)
    assert program.process.stdout is not None
    program.process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_keeps_whole_records_and_leaves_no_process(program: Program, number: signal.Signals) -> None:
    program.wait_for_parties()
    os.killpg(program.process.pid, number)  # a terminal's Ctrl-C and `timeout` reach every process of the group
    assert program.wait() == sweep_program.INTERRUPTED, program.output()
    assert "GCS" not in program.output()  # Ray was not killed before the sweep was done with it
    assert [record.status for record in program.records()] == [Status.OK, Status.INTERRUPTED]
    assert RecordStore(program.out).warnings == []
    assert not program.living()
    assert not (program.out / "targets.json").exists()


def test_a_second_signal_forces_the_end(program: Program) -> None:
    program.wait_for_parties()
    for _ in range(2):
        program.process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    program.wait()
    assert [record.status for record in program.records()][:1] == [Status.OK]
    assert not program.living()


def test_a_killed_driver_ends_the_parties_and_its_ray(program: Program) -> None:
    program.wait_for_parties()
    assert sum("ray::PartyActor" in _words(process) for process in program.descendants) == len(ROLES)
    program.process.kill()
    program.wait()
    assert [record.status for record in program.records()] == [Status.OK]
    # Ray's two agents first try to report the end to the dead head, and give up by themselves after a minute or two.
    assert not program.living(ignored=("ray::DashboardAgent", "ray::RuntimeEnvAgent"))


def test_signals_count_and_the_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    stop = threading.Event()
    with stop_on_signals(stop):
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_another_thread_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with stop_on_signals(threading.Event()):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
