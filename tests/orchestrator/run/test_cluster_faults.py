"""A cluster that loses a node, or its head, under a sweep."""

import contextlib
import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group
from rich.console import Console

from orchestrator.experiment.cells import expand
from orchestrator.records.record import Status
from orchestrator.records.store import RecordStore
from orchestrator.run.placement import CPU_SHARE
from tests.helpers.emulated_cluster import emulated_cluster
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
STORE = 80_000_000


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head, and a second node that alone offers a slot for the server, and none for another party."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with emulated_cluster({"num_cpus": 2}, {"num_cpus": 1, "resources": {"server": 1, "rest": 1}}) as cluster:
        assert placement_group([{"CPU": 1 - CPU_SHARE, "rest": 1}]).wait(PATIENCE_S)
        yield cluster


def raylet_of(node: object) -> psutil.Process:
    """The process of a node of the cluster."""
    (process_info,) = node.all_processes["raylet"]  # type: ignore[attr-defined]
    return psutil.Process(process_info.process.pid)


def test_a_lost_node_fails_its_cell_and_the_sweep_continues_elsewhere(cluster: Cluster, tmp_path: Path) -> None:
    (second,) = cluster.worker_nodes
    experiment = fake_experiment(tmp_path, "second-server-decode", seq_lens=[16, 17])
    out = tmp_path / "out"

    def inject() -> None:
        wait_until((tmp_path / f"second-server-decode{REACHED}").exists)
        raylet_of(second).kill()

    striking = threading.Thread(target=inject)
    striking.start()
    console = Console(file=io.StringIO())
    first, lost = sweep_in(out, experiment, expand(experiment), console=console, party_class=FAKE).records
    striking.join()
    assert first.status is Status.OK
    assert lost.status is Status.PARTY_DIED
    assert lost.error is not None
    assert (lost.error.role, lost.error.stage) == ("server", "softmax")
    assert lost.error.sent_bytes > 0

    more = fake_experiment(tmp_path, seq_lens=[18])
    (after,) = sweep_in(tmp_path / "more", more, expand(more), console=console, party_class=FAKE).records
    assert after.status is Status.OK, after.error


class Head:
    """`ray start --head` on this machine, as an administrator would start and lose it."""

    def __init__(self, port: int, folder: Path) -> None:
        self.address = f"127.0.0.1:{port}"
        ray_script = Path(sys.executable).with_name("ray")
        options = ["--head", f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=4", "--block"]
        options += [f"--object-store-memory={STORE}", "--include-dashboard=false", f"--temp-dir={folder}"]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
        self.log = (folder / "head.log").open("wb")
        self.process = psutil.Popen(
            [ray_script, "start", *options, "--disable-usage-stats"],
            env=environment,
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )

    def kill(self) -> None:
        """Kills all processes of the head at once."""
        everyone = [self.process, *self.process.children(recursive=True)] if self.process.is_running() else []
        for process in everyone:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(everyone, timeout=PATIENCE_S)
        self.log.close()

    @property
    def output(self) -> str:
        """The output of the head."""
        return Path(self.log.name).read_text()


def sweep(out: Path, address: str, fault: str) -> subprocess.Popen[bytes]:
    settings = {"RAY_ADDRESS": address, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, str(HELPERS / "sweep_program.py"), str(out), fault, "16", "17"]
    # Ray itself waits a minute for a head to come back before it gives up.
    environment = os.environ | settings | {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_a_head_that_is_restarted_under_a_driver_loses_no_record_and_the_same_command_resumes(tmp_path: Path) -> None:
    out, port = tmp_path / "out", free_port()
    folder = Path(tempfile.mkdtemp(prefix="head-", dir="/tmp"))  # short, for sockets; not a name that `clean` removes
    head = Head(port, folder)
    try:
        wait_until(lambda: answers(port) or head.process.poll() is not None)
        assert head.process.poll() is None, head.output
        with sweep(out, head.address, "pause-server-decode") as driver:
            wait_until(lambda: RecordStore(out).read() or driver.poll() is not None)
            assert driver.poll() is None, driver.communicate()[0]
            head.kill()
            finished = (out / "records.jsonl").read_bytes()
            printed, _ = driver.communicate(timeout=PATIENCE_S)
        assert driver.returncode != 0, printed
        assert (out / "records.jsonl").read_bytes().startswith(finished)

        head = Head(port, folder)
        wait_until(lambda: answers(port) or head.process.poll() is not None)
        assert head.process.poll() is None, head.output
        with sweep(out, head.address, "pause-server-decode") as driver:
            printed, _ = driver.communicate(timeout=PATIENCE_S)
        assert driver.returncode == 0, printed
        assert (out / "records.jsonl").read_bytes().startswith(finished)
        assert Status.OK in {record.status for record in RecordStore(out).latest().values()}
    finally:
        head.kill()
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
        return True
    return False
