"""The verbs of a host, and the capabilities of its kernel."""

import socket
import threading
import time
from collections.abc import Iterator
from itertools import chain, repeat
from types import SimpleNamespace

import pytest

from netem import HostService, LocalSite, NetemError, ProbeError, ProbeServer, measure_link
from netem.capability import capability
from netem.route import device_towards
from tests.helpers.waiting import PATIENCE_S


@pytest.fixture
def service() -> Iterator[HostService]:
    made = HostService()
    yield made
    made.close()


QUICK = {"seconds": 0.05, "rate_mbit": None, "limit_s": 10.0}


def test_a_prober_answers_until_it_is_closed(service: HostService) -> None:
    address = service.perform("probe_open", {"host": "127.0.0.1"})["address"]
    measured = service.perform("measure", {"address": address, **QUICK})
    assert measured["rate_mbit"] > 0
    assert 0 < measured["rtt_ms"] <= measured["rtt_p99_ms"]
    service.perform("probe_close", {"port": address[1]})
    with pytest.raises(NetemError, match=r"no probe of 127\.0\.0\.1"):
        service.perform("measure", {"address": address, **QUICK})


@pytest.mark.parametrize(("trips_ms", "expected_ms"), [([0.2, 0.1, 0.12], 0.12), ([80.0, 0.5, 60.0, 90.0, 70.0], 0.5)])
def test_the_round_trip_of_the_idle_link_is_not_that_of_a_busy_machine(
    service: HostService, monkeypatch: pytest.MonkeyPatch, trips_ms: list[float], expected_ms: float
) -> None:
    monkeypatch.setattr("netem.host.measure_rtt", lambda _: [trip / 1e3 for trip in trips_ms])
    assert service.perform("rtt", {"address": ("127.0.0.1", 1)})["rtt_ms"] == pytest.approx(expected_ms)


def test_a_sender_that_is_late_still_sends_what_can_be_counted(
    service: HostService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that a busy machine did not run until the time of its plan was over."""
    clock = chain([0.0], repeat(1e6))
    monkeypatch.setattr("netem.prober.time", SimpleNamespace(
        perf_counter=lambda: next(clock), sleep=time.sleep, perf_counter_ns=time.perf_counter_ns
    ))  # fmt: skip
    monkeypatch.setattr("netem.prober.measure_rtt", lambda *_, **__: [0.0])
    address = service.perform("probe_open", {"host": "127.0.0.1"})["address"]
    assert service.perform("measure", {"address": address, **QUICK})["rate_mbit"] > 0


def test_closing_the_service_closes_its_probers(service: HostService) -> None:
    address = tuple(service.perform("probe_open", {"host": "127.0.0.1"})["address"])
    service.close()
    with pytest.raises(OSError):  # noqa: PT011 - refused or reset, as the kernel likes
        socket.create_connection(address, timeout=PATIENCE_S).recv(1)


def test_an_address_of_another_machine_cannot_be_probed_from_here(service: HostService) -> None:
    with pytest.raises(NetemError, match=r"cannot listen on 192\.0\.2\.9"):
        service.perform("probe_open", {"host": "192.0.2.9"})


def test_an_unknown_verb_is_named_with_the_known_ones() -> None:
    with pytest.raises(NetemError, match="'shpae' is unknown; use one of probe_open"):
        LocalSite().call("127.0.0.1", "shpae", {})


def test_a_server_that_is_not_a_prober_is_an_error_and_not_a_number() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        hang_up = threading.Thread(target=lambda: silent.accept()[0].close())
        hang_up.start()
        with pytest.raises(ProbeError, match="no probe of"):
            measure_link(silent.getsockname(), 0.05)
        hang_up.join()


@pytest.mark.parametrize("first", [b"", b"X", b"S", b"S\x00"])
def test_a_prober_survives_strangers(first: bytes) -> None:
    with ProbeServer("127.0.0.1") as server:
        with socket.create_connection(server.address, timeout=PATIENCE_S) as stranger:
            stranger.sendall(first)
            stranger.shutdown(socket.SHUT_WR)
            assert stranger.recv(100) == b""
        assert measure_link(server.address, 0.05).rate_mbit > 0


def test_the_interface_towards_this_machine_is_loopback() -> None:
    assert device_towards("127.0.0.1") == "lo"


def test_a_missing_capability_is_reported_with_the_reason() -> None:
    found = capability()
    assert found.kernel
    assert found.congestion_control
    if found.rate:
        assert found.delay == found.rate  # without a rate there is no delay either, for the same reason


def test_without_tc_the_capability_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    capability.cache_clear()
    try:
        assert "iproute2" in capability().rate
        assert "iproute2" in capability().delay
    finally:
        capability.cache_clear()
