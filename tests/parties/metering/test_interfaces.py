"""Totals over interfaces that come and go."""

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from parties.metering.interfaces import Counted, InterfaceTotals, kernel_counters
from tests.helpers.needs import needs
from tests.helpers.waiting import PATIENCE_S

COUNTS = st.tuples(st.integers(0, 10**12), st.integers(0, 10**12))
READINGS = st.lists(st.dictionaries(st.sampled_from(["lo", "eth0", "veth1"]), COUNTS), min_size=1, max_size=8)


def totals(readings: list[Counted]) -> list[tuple[int, int]]:
    queue = iter(readings)
    interfaces = InterfaceTotals(lambda: next(queue))
    return [interfaces.read() for _ in readings]


@given(readings=READINGS)
def test_totals_never_fall(readings: list[Counted]) -> None:
    for before, after in zip(found := totals(readings), found[1:], strict=False):
        assert before[0] <= after[0]
        assert before[1] <= after[1]


def test_traffic_of_an_interface_stays_counted_after_its_removal() -> None:
    readings: list[Counted] = [{"lo": (5, 5), "veth1": (100, 40)}, {"lo": (7, 6)}, {"lo": (7, 6), "veth1": (3, 2)}]
    assert totals(readings) == [(105, 45), (107, 46), (110, 48)]


def test_an_interface_recreated_between_two_readings_counts_from_zero() -> None:
    assert totals([{"veth1": (100, 40)}, {"veth1": (8, 60)}]) == [(100, 40), (108, 100)]


def test_the_first_reading_equals_the_kernels_counters() -> None:
    before = sum(sent for sent, _ in kernel_counters().values())
    assert InterfaceTotals().read()[0] >= before


REMOVED_UNDER_TRAFFIC = """
import socket, subprocess, time
from parties.metering.interfaces import InterfaceTotals
from tests.helpers.needs import needs
def ip(*words): subprocess.run(["ip", *words], check=True)
ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
ip("addr", "add", "10.9.9.1/24", "dev", "v0")
ip("link", "set", "v0", "up"); ip("link", "set", "v1", "up")
def shown(): return subprocess.run(["ip", "link", "show", "v0"], check=True, capture_output=True, text=True).stdout
while "state UP" not in shown():  # on a busy machine it is so later than `ip` returns
    time.sleep(0.01)
ip("neigh", "add", "10.9.9.2", "lladdr", "02:00:00:00:00:02", "dev", "v0")
totals = InterfaceTotals()
start = totals.read()[0]
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    for _ in range(100):
        sender.sendto(bytes(1000), ("10.9.9.2", 9))
sent = totals.read()[0]
assert sent - start >= 100_000, (start, sent)
ip("link", "del", "v0")
assert totals.read()[0] >= sent
"""


@needs("namespaces")
def test_an_interface_that_is_removed_under_traffic_leaves_its_bytes() -> None:
    subprocess.run(["unshare", "--net", sys.executable, "-c", REMOVED_UNDER_TRAFFIC], check=True, timeout=PATIENCE_S)
