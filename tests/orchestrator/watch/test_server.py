"""The HTTP server of the driver, and the inherited sockets by which a lab's driver serves the machine outside."""

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.watch.outside import inherited_sockets, metrics_socket, page_listener
from orchestrator.watch.page import html
from orchestrator.watch.server import Metrics, Routes, handler, page_routes, relay
from orchestrator.watch.terminal import SweepProgress
from orchestrator.watch.watch import Watch
from parties.address import Address, listen
from parties.errors import AddressInUse
from parties.metering.exporter import Exporter
from parties.metering.meter import StageMeter
from parties.metering.serving import HttpServer
from tests.helpers.waiting import PATIENCE_S


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    return Watch("run-1", tmp_path, SweepProgress("run", 2))


@contextmanager
def serving(routes: Routes) -> Iterator[Address]:
    server = HttpServer(listen("127.0.0.1", 0), handler(routes))
    try:
        yield server.address
    finally:
        server.close()


def get(address: Address, path: str) -> tuple[int, str, str]:
    """Status, content type and body."""
    connection = http.client.HTTPConnection(*address, timeout=PATIENCE_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read().decode()
    finally:
        connection.close()


def test_the_driver_serves_the_run_and_itself_and_records_the_time_of_a_scrape(watch: Watch) -> None:
    metrics = Metrics(watch)
    assert metrics.scraped == float("-inf")
    with serving({"/metrics": metrics}.get) as address:
        status, kind, text = get(address, "/metrics")
    assert (status, kind.split(";")[0]) == (200, "text/plain")
    assert 'mpcbench_cells_left{party="driver"} 2.0' in text
    assert 'mpcbench_resident_bytes{party="driver"}' in text
    assert metrics.scraped > 0


def test_metrics_that_only_the_driver_reaches_are_forwarded_unchanged() -> None:
    exporter = Exporter("server", StageMeter(), "127.0.0.1")
    with serving({"/server/metrics": relay(*exporter.address)}.get) as address:
        status, kind, text = get(address, "/server/metrics")
        assert (status, kind.split(";")[0]) == (200, "text/plain")
        assert 'mpcbench_cpu_seconds_total{party="server"}' in text
        exporter.close()
        status, _, text = get(address, "/server/metrics")
    assert status == 502
    assert "does not answer" in text


def test_a_hanging_party_does_not_hold_up_the_others(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.watch.server._RELAY_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        routes: dict[str, Any] = {"/client/metrics": relay(*mute.getsockname()), "/metrics": Metrics(watch)}
        with serving(routes.get) as address:
            assert get(address, "/client/metrics")[0] == 502
            assert get(address, "/metrics")[0] == 200


def test_the_page_needs_nothing_from_elsewhere(watch: Watch) -> None:
    with serving(page_routes(watch, html())) as address:
        status, kind, text = get(address, "/")
        assert (status, kind) == (200, "text/html; charset=utf-8")
        assert "/* page.js */" not in text
        assert "class Chart" in text
        assert "--paper" in text
        asked = text.replace("http://www.w3.org/2000/svg", "")  # a name, not an address
        assert not any(away in asked for away in ("http://", "https://", "src=", "@import"))
        reply = json.loads(get(address, "/news?cell=&generation=-1&seen=0")[2])
    assert (reply["run"], reply["total"], reply["samples"]) == ("run-1", 2, [])


@pytest.mark.parametrize(
    ("path", "status"),
    [("/nothing", 404), ("/news?seen=many", 400), ("/news?generation=", 200), ("/../etc/passwd", 404)],
)
def test_other_requests_get_an_error_and_the_next_an_answer(watch: Watch, path: str, status: int) -> None:
    with serving(page_routes(watch, html())) as address:
        assert get(address, path)[0] == status
        assert get(address, "/news")[0] == 200


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(AddressInUse, match="in use"):
        page_listener("127.0.0.1", taken.getsockname()[1])


INSIDE = """
import os, sys
from orchestrator.watch.outside import metrics_socket, page_listener
from orchestrator.watch.targets import targets_dir
metrics, page = metrics_socket(), page_listener("192.0.2.1", 1)
assert not metrics.get_inheritable() and not any(name.endswith("_FD") for name in os.environ)
print(targets_dir(), flush=True)
for listener in (metrics, page):
    connection, _ = listener.accept()
    connection.sendall(b"from inside")
    connection.close()
    listener.close()
"""


def test_a_driver_in_another_network_is_reached_by_inherited_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPCACHE_BENCH_TARGETS", str(tmp_path))
    away = ["unshare", "--net"] if os.geteuid() == 0 else []
    with inherited_sockets(listen("127.0.0.1", 0)) as outside:
        ports = [socket.socket(fileno=os.dup(number)) for number in outside.descriptors]
        addresses = [port.getsockname() for port in ports]
        for port in ports:
            port.close()
        command = [*away, sys.executable, "-c", INSIDE]
        environment = {**os.environ, **outside.environment}
        with subprocess.Popen(
            command, env=environment, pass_fds=outside.descriptors, stdout=subprocess.PIPE, text=True
        ) as driver:
            assert driver.stdout is not None
            assert driver.stdout.readline().strip() == str(tmp_path) == str(outside.folder)
            for address in addresses:
                with socket.create_connection(address, PATIENCE_S) as connection:
                    assert connection.recv(100) == b"from inside"
            assert driver.wait(PATIENCE_S) == 0


def test_outside_of_a_lab_there_are_no_inherited_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPCACHE_BENCH_METRICS_FD", raising=False)
    assert metrics_socket() is None
