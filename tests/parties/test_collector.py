import mmap
import socket

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from parties.meter import StageMeter
from tests.parties.scraping import get, scrape, serving, value

counts = st.fixed_dictionaries(
    {
        "sent": st.integers(0, 2**40),
        "received": st.integers(0, 2**40),
        "messages": st.integers(0, 9),
        "rounds": st.sampled_from([0.0, 0.5, 1.0]),
        "blocked": st.floats(0, 3),
    }
)


@given(
    st.lists(st.tuples(st.sampled_from(["softmax", "offline.seeds"]), st.sampled_from(["server", "dealer"]), counts))
)
@settings(max_examples=15, deadline=None)
def test_a_scrape_says_what_the_meter_says(calls: list) -> None:
    meter = StageMeter()
    for stage, peer, numbers in calls:
        with meter.stage(stage):
            meter.count(peer, **numbers)
    with serving("client", meter) as exporter:
        samples = scrape(exporter)
    for reading in meter.snapshot():
        stage = {"party": "client", "stage": reading.stage, "phase": reading.phase}
        assert value(samples, "mpcbench_stage_seconds_total", **stage) <= reading.seconds
        for peer, count in reading.peers.items():
            link = {**stage, "peer": peer}
            assert value(samples, "mpcbench_sent_bytes_total", **link) == count.sent_bytes
            assert value(samples, "mpcbench_received_bytes_total", **link) == count.received_bytes
            assert value(samples, "mpcbench_messages_total", **link) == count.messages
            assert value(samples, "mpcbench_rounds_total", **link) == count.rounds
            assert value(samples, "mpcbench_blocked_seconds_total", **link) == count.blocked_seconds
    sent = sum(v for (name, _), v in samples.items() if name == "mpcbench_sent_bytes_total")
    assert sent == sum(numbers["sent"] for _, _, numbers in calls)


@given(st.lists(st.floats(0, 3), min_size=1))
@settings(max_examples=15, deadline=None)
def test_the_exchange_histogram_holds_every_exchange_up_to_each_bound(times: list[float]) -> None:
    meter = StageMeter()
    for blocked in times:
        meter.count("server", rounds=1, blocked=blocked)
    with serving(meter=meter) as exporter:
        samples = scrape(exporter)
    buckets = {
        float(dict(labels)["le"]): number
        for (name, labels), number in samples.items()
        if name == "mpcbench_exchange_seconds_bucket"
    }
    assert buckets == {bound: sum(blocked <= bound for blocked in times) for bound in buckets}
    peer = {"party": "client", "peer": "server"}
    assert value(samples, "mpcbench_exchange_seconds_count", **peer) == buckets[float("inf")] == len(times)
    assert value(samples, "mpcbench_exchange_seconds_sum", **peer) == pytest.approx(sum(times))


def test_a_running_stage_grows_from_scrape_to_scrape() -> None:
    meter = StageMeter()
    stage = {"party": "client", "stage": "softmax", "phase": "online"}
    with serving("client", meter) as exporter, meter.stage("softmax"):
        first = value(scrape(exporter), "mpcbench_stage_seconds_total", **stage)
        assert value(scrape(exporter), "mpcbench_stage_seconds_total", **stage) > first > 0


def test_memory_and_time_of_this_very_process_are_served() -> None:
    before = psutil.Process().cpu_times()
    with serving("dealer") as exporter:
        samples = scrape(exporter)
    assert value(samples, "mpcbench_cpu_seconds_total", party="dealer") >= before.user + before.system
    resident = value(samples, "mpcbench_resident_bytes", party="dealer")
    assert resident == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert value(samples, "mpcbench_peak_resident_bytes", party="dealer") >= resident * 0.99


def test_the_peak_stays_when_memory_is_given_back() -> None:
    with serving() as exporter, mmap.mmap(-1, 100 << 20) as block:
        block.write(b"x" * len(block))  # mapped by itself, so that closing it gives the memory back at once
        high = value(scrape(exporter), "mpcbench_resident_bytes", party="client")
        block.close()
        samples = scrape(exporter)
    assert value(samples, "mpcbench_resident_bytes", party="client") < high
    peak = value(samples, "mpcbench_peak_resident_bytes", party="client")
    assert peak >= high * 0.99  # the kernel's counters lag behind by a few pages a thread


def test_interface_counters_see_loopback_traffic() -> None:
    names = ("mpcbench_interface_sent_bytes_total", "mpcbench_interface_received_bytes_total")
    with serving() as exporter, socket.socket(type=socket.SOCK_DGRAM) as sock:
        before = scrape(exporter)
        for _ in range(100):
            sock.sendto(b"x" * 10_000, ("127.0.0.1", 9))
        after = scrape(exporter)
    for name in names:
        assert value(after, name, party="client") >= value(before, name, party="client") + 1_000_000


def test_openmetrics_is_served_to_those_who_ask() -> None:
    meter = StageMeter()
    meter.count("server", sent=1, rounds=1, blocked=0.1)
    with serving(meter=meter) as exporter:
        names = {family.name for family in parse_openmetrics(get(exporter, "application/openmetrics-text"))}
    assert {"mpcbench_sent_bytes", "mpcbench_exchange_seconds"} <= names
