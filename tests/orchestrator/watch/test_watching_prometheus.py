"""`observe up`, `down` and `status` with a real Prometheus, and a real run that is independent of it."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from typer.testing import CliRunner

from orchestrator.cli.observe import observe_app
from orchestrator.watch.prometheus import Prometheus, default_folder, down, running, to_add
from orchestrator.watch.targets import TargetFile
from parties.metering.exporter import Exporter
from parties.metering.meter import StageMeter
from parties.metering.progress import Progress
from tests.helpers.needs import needs
from tests.helpers.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.slow

needs_prometheus = needs("prometheus")


@pytest.fixture(autouse=True)
def own_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runs of this test alone."""
    folder = tmp_path / "targets"
    folder.mkdir()
    monkeypatch.setenv("MPCACHE_BENCH_TARGETS", str(folder))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "prometheus"
    down(tmp_path / "prometheus")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def observe(*words: str) -> tuple[int, str]:
    """Runs the command in a separate process, so that its children are not ours; returns exit status and output."""
    command = [sys.executable, "-m", "orchestrator.cli.main", "observe", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout


def query(port: int, expression: str) -> list[dict[str, Any]]:
    url = f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(expression)}"
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found


@needs_prometheus
def test_prometheus_watches_consecutive_runs_and_a_dead_party(folder: Path, own_targets: Path) -> None:
    port = free_port()
    status, output = observe("up", "--detach", "--port", str(port), "--folder", str(folder), "--ray", "")
    assert (status, f"http://127.0.0.1:{port}" in output) == (0, True), output
    assert observe("status", "--folder", str(folder))[0] == 0
    meters = {role: StageMeter() for role in ("client", "server")}
    exporters = {role: Exporter(role, meter, "127.0.0.1") for role, meter in meters.items()}
    exporters["client"].observe(Progress(meters["client"]))
    with TargetFile([own_targets / "r.json"], "r", exporters["client"].address) as targets:
        targets.write({role: exporter.address for role, exporter in exporters.items()})
        wait_until(lambda: len(query(port, 'up{job="mpcbench", run="r"} == 1')) == 3)
        assert {found["metric"]["party"] for found in query(port, "mpcbench_resident_bytes")} == {"client", "server"}
        wait_until(lambda: query(port, 'mpcbench:memory_used:ratio{run="r", party="client"} > 0'))
        exporters["server"].close()  # the party is dead
        wait_until(lambda: query(port, 'ALERTS{alertname="MpcbenchPartySilent", party="server", alertstate="firing"}'))
        assert "down" in observe("status", "--folder", str(folder))[1]
    wait_until(lambda: not query(port, 'up{run="r"}'))  # the run is over: its series are removed and not stale
    assert not query(port, "mpcbench_resident_bytes")
    exporters["client"].close()
    assert observe("down", "--folder", str(folder)) == (0, f"Prometheus has ended; its data stays in {folder}\n")
    assert running(folder) is None
    assert "no Prometheus of ours runs" in observe("down", "--folder", str(folder))[1]
    assert observe("status", "--folder", str(folder))[0] == 1


@needs_prometheus
def test_in_the_foreground_ctrl_c_ends_all_its_processes(folder: Path) -> None:
    port = str(free_port())
    command = [sys.executable, "-m", "orchestrator.cli.main", "observe", "up", "--port", port, "--folder", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert f":{port}" in process.stdout.readline()
        server = psutil.Process(process.pid).children()[0]
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.wait(PATIENCE_S) == 0
    assert not server.is_running()


@needs_prometheus
def test_a_second_one_and_a_taken_port_are_refused_with_the_fix(folder: Path, tmp_path: Path) -> None:
    port = free_port()
    assert observe("up", "--detach", "--port", str(port), "--folder", str(folder))[0] == 0
    status, output = observe("up", "--detach", "--port", str(free_port()), "--folder", str(folder))
    assert (status, "up already" in output, "observe down" in output) == (2, True, True)
    status, output = observe("up", "--detach", "--port", str(port), "--folder", str(tmp_path / "other"))
    assert (status, f"port {port}" in output, "--port" in output, "--no-start" in output) == (2, True, True, True)


@needs_prometheus
def test_a_killed_one_can_be_started_again(folder: Path) -> None:
    port = free_port()
    assert observe("up", "--detach", "--port", str(port), "--folder", str(folder))[0] == 0
    started = running(folder)
    assert started is not None
    psutil.Process(started["pid"]).kill()
    wait_until(lambda: running(folder) is None)
    status, output = observe("up", "--detach", "--port", str(port), "--folder", str(folder))
    assert status == 0, output


@needs_prometheus
def test_the_error_of_a_prometheus_that_cannot_start_is_forwarded(folder: Path) -> None:
    server = Prometheus(folder, free_port())
    server.write("", 60.0)
    server.configuration.write_text("nonsense: true")
    with pytest.raises(Exception, match=r"ended at once:\n(.|\n)*nonsense"):
        server.start(detach=True)
    assert running(folder) is None


def test_without_prometheus_it_prints_the_configuration_for_an_existing_one(
    folder: Path, own_targets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(own_targets))
    status, output = observe("up", "--folder", str(folder))
    assert (status, "apt-get install prometheus" in output) == (2, True)
    assert f"{own_targets}/*.json" in output
    status, output = observe("up", "--no-start", "--folder", str(folder))
    assert status == 0
    added = yaml.safe_load(output)
    assert added["rule_files"] == [str(folder / "rules.yml")]
    assert added["scrape_configs"][0]["honor_labels"] is True


def test_files_that_another_user_cannot_read_are_reported_with_the_fixes(own_targets: Path, tmp_path: Path) -> None:
    own_targets.chmod(0o700)
    rules = tmp_path / "prometheus" / "rules.yml"
    before = os.umask(0o077)
    try:
        Prometheus(rules.parent).write("", 60.0)
    finally:
        os.umask(before)
    assert (rules.stat().st_mode & 0o777, rules.parent.stat().st_mode & 0o777) == (0o644, 0o755)
    rules.parent.chmod(0o700)
    output = to_add(rules)
    assert f"# {own_targets} is closed to other users: run that Prometheus as uid {os.geteuid()}" in output
    assert f"# {rules.parent} is closed to other users" in output
    assert "--folder" in output
    assert "MPCACHE_BENCH_TARGETS" in output
    assert yaml.safe_load(output)["rule_files"] == [str(rules)]


def test_bad_values_are_refused_before_anything_starts(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for words, expected in (
        (["--stall-seconds", "0"], "stall_seconds"),
        (["--ray", "head:8265"], "must begin with http://"),
        (["--folder", str(tmp_path / "file" / "below")], "cannot be written"),
    ):
        status, output = observe("up", "--folder", str(folder), *words)
        assert (status, expected in output) == (2, True), output


def test_the_folder_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "mpcache-bench" / "prometheus"
    monkeypatch.delenv("XDG_STATE_HOME")
    assert default_folder().is_relative_to(Path.home())


def test_a_user_without_a_home_gets_an_error_that_names_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    monkeypatch.setattr("subprocess.Popen", None)  # nothing may be started
    for command in ("up", "down", "status"):
        done = CliRunner().invoke(observe_app, [command])
        assert done.exit_code == 2
        assert "set HOME, or XDG_STATE_HOME, to a folder, or give --folder" in done.output


def test_an_unusable_folder_is_named(tmp_path: Path) -> None:
    status, output = observe("down", "--folder", str(tmp_path / ("x" * 300)))
    assert (status, "File name too long; look at --folder" in output) == (2, True), output
