import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler

import pytest

from parties.address import listen
from parties.errors import AddressInUse, AddressUnusable
from parties.metering.exporter import Exporter
from parties.metering.meter import StageMeter
from parties.metering.serving import HttpServer
from tests.helpers.scraping import scrape, serving, value
from tests.helpers.waiting import PATIENCE_S
from tests.helpers.wires import child


def test_parties_in_one_process_do_not_mix() -> None:
    client, server = StageMeter(), StageMeter()
    client.count("server", sent=1)
    server.count("client", sent=2)
    with serving("client", client) as one, serving("server", server) as other:
        assert {dict(labels)["party"] for _, labels in scrape(one)} == {"client"}
        assert {dict(labels)["party"] for _, labels in scrape(other)} == {"server"}


def test_scrapes_do_not_disturb_the_party_nor_each_other() -> None:
    meter = StageMeter()
    stop = threading.Event()

    def decode() -> None:
        while not stop.is_set():
            with meter.stage("softmax"):
                meter.count("server", sent=1, received=1, messages=2, rounds=1, blocked=1e-4)

    worker = threading.Thread(target=decode)
    worker.start()
    try:
        with serving("client", meter) as exporter, ThreadPoolExecutor(4) as pool:
            link = {"party": "client", "stage": "softmax", "phase": "online", "peer": "server"}
            for samples in pool.map(lambda _: scrape(exporter), range(20)):
                rounds = value(samples, "mpcbench_rounds_total", **link)
                assert value(samples, "mpcbench_sent_bytes_total", **link) == rounds
    finally:
        stop.set()
        worker.join()
    assert meter.current == "bench.idle"


def test_closing_frees_the_port_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    exporter = Exporter("client", StageMeter(), "127.0.0.1")
    scrape(exporter)
    exporter.close()
    exporter.close()
    assert set(threading.enumerate()) <= before
    again = Exporter("client", StageMeter(), *exporter.address)
    assert scrape(again)
    again.close()


@pytest.mark.parametrize(
    "partial", [b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\n"], ids=["nothing", "part", "no end"]
)
def test_closing_does_not_wait_for_a_scrape_that_hangs(partial: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parties.metering.serving.HUNG_REQUEST_SECONDS", 3600)
    before = set(threading.enumerate())
    exporter = Exporter("client", StageMeter(), "127.0.0.1")
    with socket.create_connection(exporter.address, PATIENCE_S) as hung:
        hung.sendall(partial)
        while len(set(threading.enumerate()) - before) < 2:  # the server's own, and the one of this scrape
            time.sleep(0.01)
        assert scrape(exporter), "a hung scrape must not keep others out"
        exporter.close()
        assert set(threading.enumerate()) <= before


def test_garbage_is_answered_with_an_error_and_the_next_scrape_works(caplog: pytest.LogCaptureFixture) -> None:
    with serving() as exporter:
        with socket.create_connection(exporter.address, PATIENCE_S) as stranger:
            stranger.sendall(b"\x16\x03\x01 what is this\r\n\r\n")
            assert b"400" in stranger.recv(1000)
        assert scrape(exporter)


@pytest.mark.parametrize(("error", "logged"), [(BrokenPipeError(), 0), (ConnectionResetError(), 0), (ValueError(), 1)])
def test_who_hangs_up_before_the_answer_is_no_failure(
    error: Exception, logged: int, caplog: pytest.LogCaptureFixture
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            raise error

    server = HttpServer(listen("127.0.0.1", 0), Handler)
    with socket.create_connection(server.address, PATIENCE_S) as caller:
        caller.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert not caller.recv(1), "closed after the error was handled"
    server.close()
    assert len(caplog.records) == logged


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_taken_port_is_named(host: str) -> None:
    exporter = Exporter("client", StageMeter(), host)
    port = exporter.address[1]
    with pytest.raises(AddressInUse, match=f"{host} port {port} is in use"):
        Exporter("server", StageMeter(), host, port)
    exporter.close()


def test_a_foreign_address_is_named() -> None:
    with pytest.raises(AddressUnusable, match=r"192\.0\.2\.1"):
        Exporter("client", StageMeter(), "192.0.2.1")


def test_a_killed_party_gives_its_port_back() -> None:
    ready, notify = os.pipe()

    def party() -> None:
        exporter = Exporter("server", StageMeter(), "127.0.0.1")
        os.write(notify, str(exporter.address[1]).encode())
        time.sleep(PATIENCE_S)

    with child(party):
        port = int(os.read(ready, 10))
    os.close(ready)
    os.close(notify)
    exporter = Exporter("server", StageMeter(), "127.0.0.1", port)
    assert scrape(exporter)
    exporter.close()
