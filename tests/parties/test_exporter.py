import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from parties.errors import AddressInUse, AddressUnusable
from parties.exporter import PARAMETERS, SETTABLE, Exporter
from parties.meter import StageMeter
from tests.parties.scraping import scrape, serving, value
from tests.parties.wires import PATIENCE_S, child


def test_run_info_and_token_numbers_carry_the_cell() -> None:
    with serving() as exporter:
        assert not any(name == "mpcbench_run_info" for name, _ in scrape(exporter))
        exporter.set_run({"engine": "fss", "policy": "mpcache", "seq_len": "256"})
        exporter.set_value("mpcbench_tokens_total", 2)
        exporter.set_value("mpcbench_tokens_total", 3)
        exporter.set_value("mpcbench_cell_state", 3)
        samples = scrape(exporter)
    run = {"party": "client", "engine": "fss", "policy": "mpcache"}
    unknown = dict.fromkeys(set(PARAMETERS) - {"engine", "policy", "seq_len"}, "")
    assert value(samples, "mpcbench_run_info", **run, **unknown, seq_len="256") == 1
    assert value(samples, "mpcbench_tokens_total", **run) == 3
    assert value(samples, "mpcbench_cell_state", party="client") == 3


def test_a_new_cell_begins_without_the_numbers_of_the_last() -> None:
    with serving() as exporter:
        for policy in ("full", "mpcache"):
            exporter.set_run({"policy": policy})
            samples = scrape(exporter)
            assert not any(name == "mpcbench_tokens_total" for name, _ in samples)
            exporter.set_value("mpcbench_tokens_total", 3)
        infos = [labels for name, labels in scrape(exporter) if name == "mpcbench_run_info"]
    assert [dict(labels)["policy"] for labels in infos] == ["mpcache"]


def test_odd_characters_in_a_parameter_do_not_break_a_scrape() -> None:
    odd = 'a"b\\c\nd{é}'
    with serving() as exporter:
        exporter.set_run({"model": odd})
        infos = [labels for name, labels in scrape(exporter) if name == "mpcbench_run_info"]
    assert dict(infos[0])["model"] == odd


@pytest.mark.parametrize("key", ["prompt", "party", "Engine", ""])
def test_an_unknown_run_parameter_is_refused_and_the_old_run_stays(key: str) -> None:
    with serving() as exporter:
        exporter.set_run({"engine": "plain"})
        with pytest.raises(ValueError, match=r"unknown; use some of .*engine"):
            exporter.set_run({"engine": "fss", key: "x"})
        assert any(dict(labels).get("engine") == "plain" for _, labels in scrape(exporter))


@pytest.mark.parametrize("name", ["mpcbench_sent_bytes_total", "mpcbench_resident_bytes", "tokens", ""])
def test_a_number_with_another_source_cannot_be_set(name: str) -> None:
    with serving() as exporter, pytest.raises(ValueError, match=f"cannot be set; use one of .*{SETTABLE[0]}"):
        exporter.set_value(name, 1)


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


@pytest.mark.parametrize("said", [b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\n"], ids=["nothing", "part", "no end"])
def test_closing_does_not_wait_for_a_scrape_that_hangs(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parties.exporter.HUNG_SCRAPE_SECONDS", 3600)
    before = set(threading.enumerate())
    exporter = Exporter("client", StageMeter(), "127.0.0.1")
    with socket.create_connection(exporter.address, PATIENCE_S) as hung:
        hung.sendall(said)
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
    ready, tell = os.pipe()

    def party() -> None:
        exporter = Exporter("server", StageMeter(), "127.0.0.1")
        os.write(tell, str(exporter.address[1]).encode())
        time.sleep(PATIENCE_S)

    with child(party):
        port = int(os.read(ready, 10))
    os.close(ready)
    os.close(tell)
    exporter = Exporter("server", StageMeter(), "127.0.0.1", port)
    assert scrape(exporter)
    exporter.close()
