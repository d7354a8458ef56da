"""`mpcache-bench submit` against a real head of Ray with its job server."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from orchestrator.records.store import RecordStore
from tests.helpers.paths import ROOT
from tests.helpers.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.ray
BIN = Path(sys.executable).parent
ENVIRONMENT = os.environ | {"RAY_AUTH_MODE": "disabled"}


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def answers(port: int, started: psutil.Popen, log: Path) -> bool:
    assert started.poll() is None, log.read_text()
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@dataclass(frozen=True)
class Head:
    """A head of Ray: the port of its job server, and the home folder of its jobs."""

    port: int
    folder: Path

    def records(self, job: str) -> list[str]:
        """Lines of the records that a submitted job has written so far."""
        path = self.folder / "mpcache-bench" / job / "records.jsonl"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A head that was started for these tests, with ports and folders of its own."""
    folder = Path(tempfile.mkdtemp(prefix="cluster-", dir="/tmp"))
    names = ["port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port"]
    names += ["metrics-export-port", "ray-client-server-port"]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    options = [f"--{name}={port}" for name, port in ports.items()]
    options += ["--head", "--block", "--node-ip-address=127.0.0.1", "--include-dashboard=true", "--num-cpus=4"]
    options += ["--object-store-memory=80000000", f"--temp-dir={folder}", "--disable-usage-stats"]
    settings = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(folder)}
    with (folder / "head.log").open("wb") as log:
        started = psutil.Popen([BIN / "ray", "start", *options], env=ENVIRONMENT | settings, stdout=log, stderr=log)
    try:
        wait_until(lambda: answers(ports["dashboard-port"], started, folder / "head.log"))
        yield Head(ports["dashboard-port"], folder)
    finally:
        family = [*started.children(recursive=True), started]
        started.terminate()
        _, left = psutil.wait_procs(family, timeout=20)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=20)
        shutil.rmtree(folder, ignore_errors=True)


def toy(folder: Path, **changes: object) -> Path:
    """The example of a cluster at toy size."""
    content = yaml.safe_load((ROOT / "examples" / "cluster.yaml").read_text())
    content |= {"model": "random:tiny-llama", "engines": ["plain"], "policies": ["full"], "networks": ["none"]}
    content |= {"seq_lens": [16], "repeats": 1, **changes}
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def submitting(file: Path, port: int, out: Path, *options: str) -> "subprocess.Popen[str]":
    command = [str(BIN / "mpcache-bench"), "submit", str(file), "--address", f"http://127.0.0.1:{port}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*command, "--out", str(out), *options], env=ENVIRONMENT, text=True, cwd=ROOT, **pipes)  # type: ignore[call-overload]


class Proxy:
    """A relay on loopback between a client and a port, whose connections can be cut."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.tailed = threading.Event()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Closes all present connections."""
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if b"/logs/tail" in data:
                    self.tailed.set()
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
        source.close()


def test_a_run_returns_its_log_and_records_although_the_connection_was_cut(head: Head, tmp_path: Path) -> None:
    proxy = Proxy(head.port)
    client = submitting(toy(tmp_path), proxy.port, tmp_path / "out")
    assert proxy.tailed.wait(PATIENCE_S)
    time.sleep(1)
    proxy.cut()
    stdout, stderr = client.communicate(timeout=PATIENCE_S)
    proxy.close()
    assert client.returncode == 0, stdout + stderr
    assert "connection lost; trying again" in stderr
    assert "INFO" not in stderr
    (record,) = RecordStore(tmp_path / "out").read()
    assert record.status == "ok"
    assert list((tmp_path / "out").glob("report*"))
    written = [line for line in stdout.splitlines() if line.rstrip().endswith("records.csv")]
    assert len(written) <= 1, stdout
    assert stdout.count("report.html") == 1, stdout


def test_a_run_that_fails_gives_its_exit_status(head: Head, tmp_path: Path) -> None:
    client = submitting(toy(tmp_path, model="/nowhere/model"), head.port, tmp_path / "out")
    stdout, stderr = client.communicate(timeout=PATIENCE_S)
    assert client.returncode == 2, stdout + stderr
    assert "model" in stdout + stderr


def test_an_interrupt_stops_the_job_and_fetches_the_results_so_far(head: Head, tmp_path: Path) -> None:
    file = toy(tmp_path, repeats=50)
    detached = submitting(file, head.port, tmp_path / "out", "--detach")
    _, stderr = detached.communicate(timeout=PATIENCE_S)
    assert detached.returncode == 0, stderr
    (job,) = re.findall(r"job (mpcache-bench-\w+);", stderr)
    following = submitting(file, head.port, tmp_path / "out", "--job", job)
    wait_until(lambda: len(head.records(job)) > 1)
    following.send_signal(signal.SIGINT)
    stdout, stderr = following.communicate(timeout=PATIENCE_S)
    assert following.returncode == 130, stdout + stderr
    assert f"stopping job {job}" in stderr
    fetched = RecordStore(tmp_path / "out").read()
    assert 1 < len(fetched) < 50
    assert {record.status for record in fetched[:-1]} == {"ok"}


def test_an_address_without_a_server_is_reported_at_once(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    stdout, stderr = (client := submitting(toy(tmp_path), port, tmp_path / "out")).communicate(timeout=PATIENCE_S)
    assert client.returncode == 2, stdout + stderr
    assert "no job server answers" in stderr


def test_an_unknown_job_is_not_a_lost_connection(head: Head, tmp_path: Path) -> None:
    client = submitting(toy(tmp_path), head.port, tmp_path / "out", "--job", "mpcache-bench-nowhere")
    stdout, stderr = client.communicate(timeout=PATIENCE_S)
    assert client.returncode == 2, stdout + stderr
    assert "has no such job" in stderr


def test_rays_own_command_runs_it_too(head: Head, tmp_path: Path) -> None:
    toy(tmp_path)
    (tmp_path / "prompts").mkdir(exist_ok=True)
    command = [
        str(BIN / "ray"),
        "job",
        "submit",
        "--address",
        f"http://127.0.0.1:{head.port}",
        "--working-dir",
        str(tmp_path),
        "--",
    ]
    run = ["mpcache-bench", "run", "toy.yaml", "--out", str(head.folder / "own")]
    done = subprocess.run([*command, *run], env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [record.status for record in RecordStore(head.folder / "own").read()] == ["ok"]
