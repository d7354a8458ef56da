import mmap
import socket
import subprocess
import time
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families as parse

from parties.metering.meter import StageMeter
from parties.metering.progress import Progress
from parties.metering.registry import BY_NAME, CELL_STATES
from tests.helpers.needs import needs
from tests.helpers.scraping import get, scrape, serving, value

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
def test_a_scrape_equals_the_readings_of_the_meter(calls: list[Any]) -> None:
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


def test_counters_continue_when_a_cell_begins() -> None:
    meter = StageMeter()
    link = {"party": "client", "stage": "softmax", "phase": "online", "peer": "server"}
    with serving("client", meter) as exporter:
        for sent in (100, 200, 300):
            with meter.stage("softmax"):
                meter.count("server", sent=100)
            assert value(scrape(exporter), "mpcbench_sent_bytes_total", **link) == sent
            meter.reset()
            assert value(scrape(exporter), "mpcbench_sent_bytes_total", **link) == sent


def test_compute_and_blocked_seconds_make_up_a_stage() -> None:
    meter = StageMeter()
    stage = {"party": "client", "stage": "softmax", "phase": "online"}
    with serving("client", meter) as exporter:
        with meter.stage("softmax"):
            meter.begin_call("server")
            time.sleep(0.01)
            under_way = scrape(exporter)  # the call still lasts
            meter.count("server", rounds=1)
        samples = scrape(exporter)
    blocked = value(under_way, "mpcbench_blocked_seconds_total", peer="server", **stage)
    assert 0.01 <= blocked <= value(samples, "mpcbench_blocked_seconds_total", peer="server", **stage)
    for seen in (under_way, samples):
        total = value(seen, "mpcbench_stage_seconds_total", **stage)
        parts = value(seen, "mpcbench_compute_seconds_total", **stage)
        parts += value(seen, "mpcbench_blocked_seconds_total", peer="server", **stage)
        assert parts == pytest.approx(total)


def test_a_decoding_party_serves_its_tokens_its_sizes_and_the_age_of_the_last_token() -> None:
    meter, now = StageMeter(), [100.0]
    with serving("client", meter) as exporter:
        state = Progress(meter, lambda: now[0])
        exporter.observe(state)
        state.enter("loading")
        assert not any(name == "mpcbench_token_age_seconds" for name, _ in scrape(exporter))
        state.enter("decode")
        state.prefilled([8, 12])
        now[0] += 3
        for age in (3.0, 0.0):
            assert value(scrape(exporter), "mpcbench_token_age_seconds", party="client") == age
            if age:
                state.token([9, 13], lambda tokens: tokens // 2, numbers=64)
        samples = scrape(exporter)
        expected = {
            "tokens_total": 1, "last_token_seconds": 3, "kept_tokens": 10, "cache_tokens": 11, "selected_tokens": 5,
            "cache_bytes": 22 * 64 * 8, "cell_state": CELL_STATES.index("decode"),
        }  # fmt: skip
        for name, number in expected.items():
            assert value(samples, f"mpcbench_{name}", party="client") == number
        state.enter("check")
        assert not any(name == "mpcbench_token_age_seconds" for name, _ in scrape(exporter))
        state.enter("loading")  # the next cell: its sizes are not known yet, its tokens are counted on
        samples = scrape(exporter)
        assert value(samples, "mpcbench_tokens_total", party="client") == 1
        assert not any(name in ("mpcbench_cache_tokens", "mpcbench_last_token_seconds") for name, _ in samples)


def test_the_times_of_tokens_are_served_as_people_who_serve_models_read_them() -> None:
    meter, now = StageMeter(), [100.0]
    with serving("client", meter) as exporter:
        state = Progress(meter, lambda: now[0])
        state.enter("loading")
        state.prompt_seconds = 7.0
        state.prefilled([8])
        steps = ((3.0, 1, 4), (1.0, 3, 4))  # seconds, tokens of each sequence, drafted
        for seconds, tokens, drafted in steps:
            now[0] += seconds
            state.token([9], lambda kept: kept, 2, tokens=tokens, sequences=2, drafted=drafted, accepted=tokens - 1)
        during = scrape(exporter)
        state.enter("check")
        after = scrape(exporter)
    expected = {
        "tokens_total": 8, "ttft_seconds_sum": 10, "ttft_seconds_count": 1, "itl_seconds_sum": 1,
        "itl_seconds_count": 1, "tokens_per_second": 2, "acceptance_ratio": 0.25,
    }  # fmt: skip
    for name, number in expected.items():
        assert value(during, f"mpcbench_{name}", party="client") == number
    assert not any(name == "mpcbench_tpot_seconds_count" for name, _ in during)
    assert value(after, "mpcbench_tpot_seconds_sum", party="client") == 1.0
    assert value(after, "mpcbench_itl_seconds_bucket", party="client", le="1.0") == 1
    assert value(after, "mpcbench_ttft_seconds_bucket", party="client", le="5.0") == 0


def test_a_stages_share_of_each_token_is_a_histogram() -> None:
    meter = StageMeter()
    with serving("client", meter) as exporter:
        state = Progress(meter)
        state.prefilled([4])
        for _ in range(3):
            with meter.stage("softmax"):
                time.sleep(0.002)
            state.token([5], lambda tokens: tokens, numbers=2)
        samples = scrape(exporter)
    stage = {"party": "client", "stage": "softmax", "phase": "online"}
    assert value(samples, "mpcbench_stage_duration_seconds_count", **stage) == 3
    assert value(samples, "mpcbench_stage_duration_seconds_bucket", le="0.001", **stage) == 0
    total = value(samples, "mpcbench_stage_seconds_total", **stage)
    assert value(samples, "mpcbench_stage_duration_seconds_sum", **stage) == pytest.approx(total)


@needs("prometheus")
def test_promtool_finds_nothing_to_lint() -> None:
    meter = StageMeter()
    meter.count("server", sent=1, received=1, messages=2, rounds=1, blocked=0.1)
    with serving(meter=meter) as exporter:
        state = Progress(meter)
        exporter.observe(state)
        state.prefilled([4])
        state.token([5], lambda tokens: tokens, numbers=2)
        text = get(exporter)
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


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


def test_a_scrape_is_the_text_format_with_names_types_and_help_of_the_registry() -> None:
    meter = StageMeter()
    with meter.stage("softmax"):
        meter.count("server", sent=2**40 + 1, received=7, messages=2, rounds=0.5, blocked=0.25)
    with serving("client", meter) as exporter:
        text = get(exporter)
    own = {family.name: family for family in parse(text) if family.name.startswith("mpcbench_")}
    assert {"mpcbench_sent_bytes", "mpcbench_rounds"} <= set(own)
    for name, family in own.items():
        metric = BY_NAME[f"{name}_total" if family.type == "counter" else name]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
    (sent,) = own["mpcbench_sent_bytes"].samples
    assert sent.value == 2**40 + 1
