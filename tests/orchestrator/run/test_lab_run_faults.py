"""Faults of a run on emulated hosts are recorded, and nothing is left behind."""

import contextlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import psutil
import pytest

from orchestrator.records.record import Record, Status
from orchestrator.records.store import RecordStore
from tests.helpers.labs import seen_by_the_machine
from tests.helpers.waiting import PATIENCE_S, wait_until

pytestmark = [
    pytest.mark.ray,
    pytest.mark.netns,
]

# Slow enough links that a fault finds the parties at work.
EXPERIMENT = """
name: faults
model: random:tiny-llama
prompt: {random_tokens: true}
engines: [crypten]
policies: [full]
networks: [{name: far, rate_mbit: 25, delay_ms: 10}]
seq_lens: [32, 48]
order: listed
new_tokens: 1
"""


class LabRun:
    """`mpcache-bench run --lab` in a process of its own."""

    def __init__(self, folder: Path, *options: str, silence_s: int = 60) -> None:
        folder.mkdir()
        self.out = folder / "out"
        (folder / "experiment.yaml").write_text(f"{EXPERIMENT}timeout_s: {silence_s}\n")
        words: list[str | Path] = ["run", folder / "experiment.yaml", "--out", self.out, "--lab", *options]
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = psutil.Popen(
                [Path(sys.executable).with_name("mpcache-bench"), *words], stdout=log, stderr=subprocess.STDOUT
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self.process.kill()
        self.process.wait()

    def await_decoding(self, cell: int = 1) -> None:
        """Waits until the parties of a cell decode."""
        self.wait_until(lambda: re.search(rf"cell {cell} of .*client decode/", self.log.read_text()))

    def wait_until(self, condition: Callable[[], object]) -> None:
        def fulfilled() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return bool(condition())

        wait_until(fulfilled, self.log.read_text)

    def descendants(self, word: str) -> list[psutil.Process]:
        found = []
        for process in self.process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any(word in part for part in process.cmdline()):
                    found.append(process)
        return found

    def records(self) -> tuple[Record, ...]:
        return RecordStore(self.out).read()


@pytest.fixture
def machine() -> Iterator[None]:
    """Afterwards the machine's interfaces, namespaces and queues are the same as before."""
    before = seen_by_the_machine()
    yield
    assert seen_by_the_machine() == before


@pytest.mark.usefixtures("machine")
def test_two_simultaneous_runs_survive_a_lost_party_and_a_stalled_relay(tmp_path: Path) -> None:
    with LabRun(tmp_path / "a") as struck, LabRun(tmp_path / "b", "--limit", "1") as stalled:
        struck.await_decoding()
        struck.descendants("ray::PartyActor")[0].kill()
        stalled.await_decoding()
        with stutter(stalled.descendants("netem.relay_process")[0]):
            assert stalled.process.wait(PATIENCE_S) == 1
        assert struck.process.wait(PATIENCE_S) == 1

    died, after = struck.records()
    assert died.status is Status.PARTY_DIED
    assert died.error is not None
    assert died.error.role in ("client", "server", "dealer", "referee")
    assert died.shaping == "relay"
    assert after.status is Status.OK  # with new parties and links
    assert float(after.shaping_details["compensation_ms"]) > 0
    (drifted,) = stalled.records()
    assert drifted.status is Status.SHAPING_DRIFTED, stalled.log.read_text()
    assert all(link.measured_before and link.measured_after for link in drifted.links)


@pytest.mark.usefixtures("machine")
def test_a_killed_relay_fails_its_cell_and_a_killed_driver_ends_hosts_ray_and_parties(tmp_path: Path) -> None:
    with LabRun(tmp_path / "a", silence_s=15) as run:
        run.await_decoding()
        run.descendants("netem.relay_process")[0].kill()
        run.await_decoding(cell=2)  # on links that were recreated and measured
        (cut,) = run.records()
        assert cut.status in (Status.TIMEOUT, Status.PARTY_DIED)  # whether Ray or a peer notices first
        assert run.descendants("ray::PartyActor")
        everyone = run.process.children(recursive=True)
    _, alive = psutil.wait_procs(everyone, timeout=PATIENCE_S)
    assert not alive


@contextlib.contextmanager
def stutter(process: psutil.Process) -> Iterator[None]:
    """A process that is stopped most of the time."""
    done = threading.Event()

    def work() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            while not done.wait(0.02):
                process.suspend()
                time.sleep(0.08)
                process.resume()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
