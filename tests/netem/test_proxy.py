"""The proxy delays and paces TCP between loopback addresses, and touches nothing else."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netem import BackendUnavailable, NetemError, NetworkProfile, ProfileError, preset, shape
from netem.prober import Address, Plan, measure_link
from netem.process import Child, command, environment
from netem.verify import deviations
from tests.helpers.waiting import PATIENCE_S

pytestmark = pytest.mark.links


class Party:
    """A listening socket, and the first connection to it."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.settimeout(PATIENCE_S)
        self.address = self.socket.getsockname()

    def accept(self) -> socket.socket:
        connection, _ = self.socket.accept()
        connection.settimeout(PATIENCE_S)
        return connection


Parties = dict[str, Party]


@pytest.fixture
def parties() -> Iterator[Parties]:
    with contextlib.ExitStack() as stack:
        made = {name: Party() for name in ("client", "server", "dealer")}
        for party in made.values():
            stack.callback(party.socket.close)
        yield made


def endpoints(parties: Parties) -> dict[str, Address]:
    return {name: party.address for name, party in parties.items()}


def profile(**values: Any) -> NetworkProfile:
    return NetworkProfile.from_mapping(values)


def receive(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (chunk := connection.recv(1 << 20)):
        data += chunk
    return bytes(data)


def test_every_ordered_pair_has_its_own_delay_and_rate(parties: Parties) -> None:
    asked = profile(
        rate_mbit=200,
        delay_ms=4,
        pairs={"client>server": {"delay_ms": 10, "rate_mbit": 80}, "dealer>client": {"rate_mbit": 40}},
    )
    with shape(asked, endpoints(parties)) as network:
        measured = network.measure(0.4, attempts=1)
        assert network.backend == "proxy"
        assert len(measured) == 6
        assert measured["client", "server"].rtt_ms >= 14 - 1
        assert measured["server", "dealer"].rtt_ms >= 8 - 1
        # A shared machine can delay and slow down the traffic, but never exceed the link.
        for (src, dst), got in measured.items():
            assert got.rate_mbit <= asked.link(src, dst).rate_mbit * 1.1
            assert got.rtt_p99_ms >= got.rtt_ms
            assert got.congestion_control
        assert measured["dealer", "client"].rate_mbit < measured["client", "dealer"].rate_mbit
        reports = network.readings(before=measured)
    by_pair = {(report.src, report.dst): report for report in reports}
    assert by_pair["client", "server"].asked["rtt_ms"] == 14
    assert by_pair["client", "server"].measured_before["rtt_ms"] == measured["client", "server"].rtt_ms
    assert by_pair["client", "server"].measured_after is None


@settings(max_examples=20, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=200_000), min_size=1, max_size=5))
def test_the_byte_stream_is_untouched_both_ways(
    both_ends: tuple[socket.socket, socket.socket], messages: list[bytes]
) -> None:
    near, far = both_ends
    sent = b"".join(messages)
    for source, sink in ((near, far), (far, near)):
        writer = threading.Thread(target=source.sendall, args=(sent,))
        writer.start()
        assert receive(sink, len(sent)) == sent
        writer.join()


@pytest.fixture(scope="module")
def both_ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of one connection through a proxy with jitter, which must not reorder."""
    one, two = Party(), Party()
    asked = profile(delay_ms=1, jitter_ms=1, rate_mbit=1000)
    with shape(asked, {"a": one.address, "b": two.address}) as network:
        near = socket.create_connection(network.dial["a"]["b"], timeout=PATIENCE_S)
        far = two.accept()
        yield near, far
        near.close()
        far.close()
    one.socket.close()
    two.socket.close()


def send_until_refused(address: Address) -> None:
    with socket.create_connection(address, timeout=PATIENCE_S) as connection:
        while connection.send(b"x"):
            time.sleep(0.05)


def test_a_half_closed_connection_still_carries_the_other_direction(parties: Parties) -> None:
    with shape(profile(delay_ms=2), endpoints(parties)) as network:
        near = socket.create_connection(network.dial["client"]["server"], timeout=PATIENCE_S)
        far = parties["server"].accept()
        near.sendall(b"question")
        near.shutdown(socket.SHUT_WR)
        assert receive(far, 100) == b"question"
        far.sendall(b"answer")
        far.close()
        assert receive(near, 100) == b"answer"
        near.close()


def test_a_closed_party_closes_its_peers_connection(parties: Parties) -> None:
    with shape(profile(delay_ms=2), endpoints(parties)) as network:
        near = socket.create_connection(network.dial["client"]["server"], timeout=PATIENCE_S)
        far = parties["server"].accept()
        near.sendall(b"x")
        assert far.recv(1) == b"x"
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()
        with pytest.raises(ConnectionResetError):
            receive(near, 1)
        near.close()


def test_a_dialled_party_that_does_not_listen_is_detected_at_once(parties: Parties) -> None:
    parties["server"].socket.close()
    with shape(profile(delay_ms=1), endpoints(parties)) as network, pytest.raises(ConnectionError):
        send_until_refused(network.dial["client"]["server"])


def test_a_reader_that_stalls_holds_the_sender_back_and_loses_nothing(parties: Parties) -> None:
    with shape(profile(delay_ms=1), endpoints(parties)) as network:
        near = socket.create_connection(network.dial["client"]["server"])
        far = parties["server"].accept()
        near.setblocking(False)
        sent = 0
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            try:
                sent += near.send(bytes(1 << 20))
                deadline = time.monotonic() + 1  # a second without progress: the sender is held back
            except BlockingIOError:
                time.sleep(0.01)
        assert sent < 400 << 20
        near.shutdown(socket.SHUT_WR)
        assert len(receive(far, sent)) == sent
        near.close()
        far.close()


def test_a_stalled_proxy_is_a_drift_that_the_measurement_shows(parties: Parties) -> None:
    del parties["dealer"]
    with shape(profile(delay_ms=1, rate_mbit=100), endpoints(parties)) as network:
        stalls = 0.2
        proxy = network.details["pid"]

        def stutter() -> None:
            while not done.wait(0.05):
                os.kill(proxy, signal.SIGSTOP)
                time.sleep(stalls)
                os.kill(proxy, signal.SIGCONT)

        done = threading.Event()
        thread = threading.Thread(target=stutter)
        thread.start()
        try:
            measured = network.measure(0.2, attempts=1)
        finally:
            done.set()
            thread.join()
        assert any("rate" in text or "RTT" in text for text in network.deviations(measured))


def test_a_killed_proxy_breaks_the_measurement_by_name(parties: Parties) -> None:
    with shape(profile(delay_ms=1), endpoints(parties)) as network:
        os.kill(network.details["pid"], signal.SIGKILL)
        psutil.wait_procs([psutil.Process(network.details["pid"])], timeout=PATIENCE_S)
        with pytest.raises(NetemError, match=r"no probe of 127\.0\.0\.1"):
            network.measure(0.1, attempts=1)


def test_a_link_at_the_bounds_of_rate_and_delay_is_measured(parties: Parties) -> None:
    del parties["dealer"]
    slow = profile(pairs={"client>server": {"rate_mbit": 0.1, "delay_ms": 2000}})
    with shape(slow, endpoints(parties)) as network:
        prober = network._paths.probe["client", "server"]
        measured = measure_link(prober, 0.1, rate_mbit=0.1, limit_s=Plan(2.0, 0.1, 0.1).limit_s)
    assert measured.rtt_ms >= 2000 - 1
    assert measured.rate_mbit == pytest.approx(0.1, rel=0.5)  # a busy machine bends it, and a fault by more


def test_a_link_that_is_faster_than_requested_is_detected(parties: Parties) -> None:
    del parties["dealer"]
    with shape(profile(rate_mbit=20), endpoints(parties)) as network:
        fast = measure_link(network._paths.probe["client", "server"], 0.2, rate_mbit=2)
    assert deviations(profile(rate_mbit=2), "client", "server", fast) != ()


def test_unshaped_links_are_measured_and_never_wrong(parties: Parties) -> None:
    with shape(preset("none"), endpoints(parties)) as network:
        assert network.backend == "none"
        assert network.dial["client"]["server"] == parties["server"].address
        measured = network.measure(0.05)
        assert len(measured) == 6
        assert network.deviations(measured) == ()
        assert all(report.asked is None for report in network.readings(measured))


def test_the_proxy_is_gone_after_the_context_and_after_an_error(parties: Parties) -> None:
    with shape(profile(delay_ms=1), endpoints(parties)) as network:
        first = network.details["pid"]
    broken = contextlib.ExitStack()
    second = broken.enter_context(shape(profile(delay_ms=1), endpoints(parties))).details["pid"]
    error = KeyError()
    assert not broken.__exit__(KeyError, error, None)
    assert not psutil.pid_exists(first)
    assert not psutil.pid_exists(second)


def test_the_proxy_does_not_outlive_a_killed_driver(parties: Parties) -> None:
    script = (
        "from netem import *; import time\n"
        f"with shape(NetworkProfile.from_mapping({{'delay_ms': 1}}), {endpoints(parties)!r}) as network:\n"
        "    print(network.details['pid'], flush=True); time.sleep(600)"
    )
    argv = [*command("netem")[:1], "-c", script]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment(), text=True) as driver:
        proxy = psutil.Process(int(driver.stdout.readline()))
        driver.kill()
    gone, _ = psutil.wait_procs([proxy], timeout=PATIENCE_S)
    assert gone


def test_loss_is_refused_for_a_stream_cannot_lose(parties: Parties) -> None:
    with (
        pytest.raises(BackendUnavailable, match=r"client>server requests loss_pct"),
        shape(profile(loss_pct=1), endpoints(parties), backend="proxy"),
    ):
        pass


def test_parties_on_other_hosts_are_refused() -> None:
    with pytest.raises(NetemError), shape(profile(delay_ms=1), {"a": ("192.0.2.7", 1), "b": ("192.0.2.8", 1)}):
        pass


def test_a_shaped_profile_is_never_run_unshaped(parties: Parties) -> None:
    with (
        pytest.raises(BackendUnavailable, match="requests shaped links"),
        shape(profile(delay_ms=1), endpoints(parties), backend="none"),
    ):
        pass


def test_an_unknown_back_end_is_named_with_the_known_ones(parties: Parties) -> None:
    with (
        pytest.raises(ProfileError, match=r"'tcc'.*auto, none"),
        shape(preset("lan"), endpoints(parties), backend="tcc"),
    ):
        pass


def test_a_process_that_cannot_start_is_reported_with_the_reason() -> None:
    with pytest.raises(NetemError, match="KeyError"):
        Child(command("netem.proxy_process"), {"lines": {}})
