import contextlib
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parties.metering.meter import StageMeter
from parties.metering.readings import StageReading
from parties.metering.stage_stack import EXCHANGE_BUCKETS
from parties.metering.stages import IDLE, STAGES, phase_of

NAMES = ("softmax", "topk", "offline.triples", "bench.check")


class Clock:
    """A clock that only moves when advanced; whole seconds, so that sums are exact."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def by_stage(meter: StageMeter) -> dict[str, StageReading]:
    readings = meter.snapshot()
    assert len({reading.stage for reading in readings}) == len(readings), "a stage appears twice"
    return {reading.stage: reading for reading in readings}


# a tree of stages: seconds to wait, bytes to count, or a stage with its content
events = st.recursive(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(0, 9)),
        st.tuples(st.just("count"), st.sampled_from(["server", "dealer"]), st.integers(0, 999)),
        st.just(("snapshot",)),
    ),
    lambda inner: st.tuples(st.just("stage"), st.sampled_from(NAMES), st.lists(inner, max_size=4)),
    max_leaves=30,
)


@given(st.lists(events, max_size=8))
def test_every_second_and_byte_lands_on_the_innermost_stage(program: list[Any]) -> None:
    clock = Clock()
    meter = StageMeter(clock)
    seconds, sent = Counter[str](), Counter[tuple[str, str]]()

    def play(steps: list[Any], current: str) -> None:
        for step in steps:
            match step:
                case ("wait", wait):
                    clock.now += wait
                    seconds[current] += wait
                case ("count", peer, size):
                    meter.count(peer, sent=size)
                    sent[current, peer] += size
                case ("snapshot",):
                    assert sum(reading.seconds for reading in meter.snapshot()) == clock.now - 1000
                case ("stage", name, inner):
                    with meter.stage(name):
                        assert meter.current == name
                        play(inner, name)
                    assert meter.current == current

    play(program, IDLE)
    readings = by_stage(meter)
    assert sum(reading.seconds for reading in readings.values()) == clock.now - 1000
    assert {name: reading.seconds for name, reading in readings.items() if reading.seconds} == dict(+seconds)
    counted = {(name, peer): c.sent_bytes for name, r in readings.items() for peer, c in r.peers.items()}
    assert counted == dict(sent)


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(["server", "dealer"]), st.integers(0, 99))))
def test_sums_agree_by_stage_and_by_peer(counts: list[tuple[str, str, int]]) -> None:
    meter = StageMeter(Clock())
    for name, peer, n in counts:
        with meter.stage(name):
            meter.count(peer, sent=n, received=2 * n, messages=2, rounds=0.5, blocked=n)
    for reading in meter.snapshot():
        of_stage = [n for name, _, n in counts if name == reading.stage]
        assert reading.sent_bytes == sum(of_stage) == sum(c.sent_bytes for c in reading.peers.values())
        assert reading.rounds == 0.5 * len(of_stage)


def test_a_running_stage_shows_its_time_so_far() -> None:
    clock = Clock()
    meter = StageMeter(clock)
    with meter.stage("softmax"):
        clock.now += 3
        assert by_stage(meter)["softmax"].seconds == 3
        clock.now += 4
    clock.now += 5
    readings = by_stage(meter)
    assert (readings["softmax"].seconds, readings[IDLE].seconds) == (7, 5)


def test_interleaved_programs_keep_their_own_stages() -> None:
    clock = Clock()
    meter = StageMeter(clock)

    def program(name: str, wait: int) -> Iterator[None]:
        for _ in range(3):
            with meter.stage(name):
                clock.now += wait
            yield

    for _ in zip(program("softmax", 1), program("topk", 10), strict=True):
        clock.now += 100
    readings = by_stage(meter)
    assert (readings["softmax"].seconds, readings["topk"].seconds, readings[IDLE].seconds) == (3, 30, 300)


def test_a_stage_left_out_of_order_is_reported() -> None:
    meter = StageMeter()
    outer, inner = meter.stage("softmax"), meter.stage("topk")
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(RuntimeError, match=r"softmax was left while topk"):
        outer.__exit__(None, None, None)


def test_an_exception_leaves_its_stages_in_whatever_order_generators_are_closed() -> None:
    meter = StageMeter()

    def program(name: str) -> Generator[None, None, None]:
        with meter.stage(name):
            yield

    first, second = program("softmax"), program("topk")
    next(first)
    next(second)
    first.close()
    assert meter.current == IDLE
    second.close()
    assert meter.current == IDLE


def test_an_error_inside_a_stage_passes_through_and_is_timed() -> None:
    clock = Clock()
    meter = StageMeter(clock)

    def fail() -> None:
        with meter.stage("softmax"):
            clock.now += 2
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert meter.current == IDLE
    assert by_stage(meter)["softmax"].seconds == 2


def test_reset_forgets_everything_but_the_open_stages() -> None:
    clock = Clock()
    meter = StageMeter(clock)
    with meter.stage("topk"):
        clock.now += 1
    with meter.stage("softmax"):
        clock.now += 2
        meter.count("server", sent=5, rounds=1, blocked=0.1)
        meter.reset()
        clock.now += 4
    clock.now += 8
    readings = by_stage(meter)
    assert {name: reading.seconds for name, reading in readings.items()} == {"softmax": 4, IDLE: 8}
    assert readings["softmax"].peers == {}
    assert readings["softmax"].compute_seconds == 4


@pytest.mark.parametrize("name", ["", "Softmax", "softmax ", "prefill", "offline", "onlinee.x", "server"])
def test_a_stage_that_is_not_in_the_list_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"softmax.*offline\.\*"):
        StageMeter().stage(name)


def test_every_listed_stage_is_online_and_prefixes_name_the_other_phases() -> None:
    assert {phase_of(stage) for stage in STAGES} == {"online"}
    assert phase_of("offline.triples") == "offline"
    assert phase_of("bench.check") == phase_of(IDLE) == "bench"
    meter = StageMeter()
    for stage in (*STAGES, "offline.triples", "bench.check"):
        with meter.stage(stage):
            pass
    assert {(r.stage, r.phase) for r in meter.snapshot()} >= {(stage, "online") for stage in STAGES}


def test_readings_cannot_be_changed() -> None:
    meter = StageMeter()
    reading = meter.snapshot()[0]
    with pytest.raises(FrozenInstanceError):
        reading.seconds = 0


def test_a_reading_does_not_change_afterwards() -> None:
    meter = StageMeter()
    meter.count("server", sent=1)
    before = by_stage(meter)[IDLE]
    meter.count("dealer", sent=1)
    assert before.sent_bytes == 1
    assert set(before.peers) == {"server"}


@given(st.lists(st.one_of(st.sampled_from(EXCHANGE_BUCKETS), st.floats(0, 10))))
def test_exchange_times_put_each_exchange_into_the_bucket_that_bounds_it(times: list[float]) -> None:
    meter = StageMeter()
    for blocked in times:
        meter.count("server", rounds=1, blocked=blocked)
        meter.count("server", rounds=0.5, blocked=7.0)  # one-way: no exchange
    if not times:
        assert "server" not in meter.exchange_times()
        return
    found = meter.exchange_times()["server"]
    expected = Counter(bisect_left(EXCHANGE_BUCKETS, blocked) for blocked in times)
    assert found.buckets == [expected[i] for i in range(len(EXCHANGE_BUCKETS) + 1)]
    assert found.seconds == pytest.approx(sum(times))


def test_a_call_is_blocked_on_its_peer_while_it_still_lasts() -> None:
    clock = Clock()
    meter = StageMeter(clock)
    with meter.stage("softmax"):
        clock.now += 1
        meter.begin_call("server")
        clock.now += 2
        reading = by_stage(meter)["softmax"]
        assert (reading.compute_seconds, reading.blocked_seconds, reading.seconds) == (1, 2, 3)
        assert meter.exchange_times() == {}
        clock.now += 4
        meter.count("server", sent=1, rounds=1)
        clock.now += 8
    reading = by_stage(meter)["softmax"]
    assert (reading.compute_seconds, reading.blocked_seconds, reading.seconds) == (9, 6, 15)
    assert meter.exchange_times()["server"].seconds == 6


actions = st.one_of(
    st.tuples(st.just("stage"), st.sampled_from(["softmax", "topk", "offline.x"])),
    st.tuples(st.just("wait"), st.floats(0, 1e3)),
    st.tuples(st.just("call"), st.sampled_from(["server", "dealer"])),
    st.tuples(st.just("reset"), st.none()),
)


@given(st.lists(actions, max_size=40))
def test_lifetime_counters_never_fall(actions: list[tuple[str, Any]]) -> None:
    clock = Clock()
    meter = StageMeter(clock)
    before: dict[str, StageReading] = {}

    def look() -> None:
        nonlocal before
        now = {reading.stage: reading for reading in meter.lifetime()}
        for name, old in before.items():
            new = now[name]
            assert (new.seconds, new.compute_seconds) >= (old.seconds, old.compute_seconds)
            assert new.compute_seconds >= old.compute_seconds
            for peer, counts in old.peers.items():
                assert new.peers[peer].blocked_seconds >= counts.blocked_seconds
                assert new.peers[peer].sent_bytes >= counts.sent_bytes
        before = now

    with contextlib.ExitStack() as stages:
        for kind, value in actions:
            if kind == "stage":
                stages.enter_context(meter.stage(value))
            elif kind == "wait":
                clock.now += value
            elif kind == "reset":
                meter.reset()
            else:
                meter.begin_call(value)
                clock.now += 0.1
                look()
                meter.count(value, sent=3, rounds=1)
            look()
    total = sum(reading.seconds for reading in meter.lifetime())
    assert total == pytest.approx(clock.now - Clock().now)


def test_each_decoding_step_gives_a_stage_one_duration() -> None:
    clock = Clock()
    meter = StageMeter(clock)
    with meter.stage("softmax"):
        clock.now += 100  # prefill: no step yet
    meter.begin_steps()
    for _ in range(3):
        for seconds in (0.5, 1.5):
            with meter.stage("softmax"):
                clock.now += seconds
        meter.end_step()
    times = meter.step_times()
    assert times["softmax"].seconds == pytest.approx(6)
    assert sum(times["softmax"].buckets) == 3
    assert IDLE not in times


def test_only_numbers_of_the_registry_can_be_added_or_put() -> None:
    meter = StageMeter()
    meter.add("mpcbench_repeats_total")
    meter.add("mpcbench_repeats_total", 2)
    meter.put("mpcbench_kept_tokens", 5)
    assert meter.numbers() == {"mpcbench_repeats_total": 3, "mpcbench_kept_tokens": 5}
    meter.put("mpcbench_dealer_backlog_bytes", lambda: 7)
    assert meter.numbers()["mpcbench_dealer_backlog_bytes"] == 7
    meter.put("mpcbench_kept_tokens", None)
    assert "mpcbench_kept_tokens" not in meter.numbers()
    for change in (meter.add, meter.put):
        with pytest.raises(KeyError, match="mpcbench_nonsense"):
            change("mpcbench_nonsense", 1)


def test_snapshots_are_whole_while_another_thread_works() -> None:
    meter = StageMeter()
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            with meter.stage("softmax"):
                meter.count("server", sent=3, received=3, messages=2, rounds=1)
                with meter.stage("topk"):
                    meter.count("dealer", sent=5, received=5, messages=2, rounds=1)

    worker = threading.Thread(target=work)
    worker.start()
    wall = 0.0
    try:
        for _ in range(300):
            readings = by_stage(meter)
            for reading in readings.values():  # no count is ever partial
                assert reading.sent_bytes == reading.received_bytes == sum(c.sent_bytes for c in reading.peers.values())
                assert reading.messages == 2 * reading.rounds
                assert reading.seconds >= 0
            so_far = sum(reading.seconds for reading in readings.values())
            assert so_far >= wall - 1e-9
            wall = so_far
    finally:
        stop.set()
        worker.join()
    readings = by_stage(meter)
    assert readings["softmax"].sent_bytes == 3 * readings["softmax"].rounds
    assert readings["topk"].rounds == readings["softmax"].rounds > 0


def test_the_difference_of_two_readings_is_what_happened_in_between() -> None:
    clock = Clock()
    meter = StageMeter(clock)
    with meter.stage("softmax"):
        meter.count("server", sent=5, messages=1, rounds=0.5, blocked=1.0)
        clock.now += 2
        earlier = by_stage(meter)["softmax"]
        meter.count("server", sent=7, messages=2, rounds=1, blocked=0.5)
        meter.count("dealer", received=3)
        clock.now += 4
        between = by_stage(meter)["softmax"].since(earlier)
    assert (between.stage, between.seconds, between.blocked_seconds) == ("softmax", 4, 0.5)
    assert (between.sent_bytes, between.received_bytes, between.messages, between.rounds) == (7, 3, 2, 1)
    assert {peer: counts.sent_bytes for peer, counts in between.peers.items()} == {"server": 7, "dealer": 0}
    assert earlier.followed_by(between) == by_stage(meter)["softmax"]


def test_marks_are_accounted_for_as_entered_stages_and_counted_exchanges_are() -> None:
    clock = Clock()
    meter = StageMeter(clock)
    outer, norm, qkv = map(meter.stage, ("softmax", "norm", "qkv"))
    with outer:
        clock.now += 1
        meter.marks.append((clock.now, norm, "", 0))
        clock.now += 2
        meter.marks.append((clock.now, qkv, "", 0))
        clock.now += 4
        meter.marks.append((clock.now, None, "server", 0))
        clock.now += 3
        assert meter.current == "qkv"
        assert by_stage(meter)["qkv"].blocked_seconds == 3, "also while the exchange goes on"
        clock.now += 5
        meter.marks.append((clock.now, None, "", 30))
        meter.marks.append((clock.now, outer, "", 0))
    assert meter.current == IDLE
    readings = by_stage(meter)
    assert {name: readings[name].seconds for name in ("softmax", "norm", "qkv")} == {"softmax": 1, "norm": 2, "qkv": 12}
    reading = readings["qkv"]
    assert (reading.compute_seconds, reading.blocked_seconds) == (4, 8)
    assert (reading.sent_bytes, reading.received_bytes, reading.rounds, reading.messages) == (30, 30, 1, 2)
    assert meter.exchange_times()["server"].seconds == 8


def test_seconds_of_a_gpu_belong_to_the_current_stage_over_all_resets() -> None:
    meter = StageMeter(clock := Clock())
    norm = meter.stage("norm")
    for _ in range(2):
        meter.reset()
        with (softmax := meter.stage("softmax")):
            meter.marks.append((clock.now, norm, "", 0))
            meter.add_kernel_seconds(0.5)
            meter.marks.append((clock.now, softmax, "", 0))
    assert {reading.stage: reading.kernel_seconds for reading in meter.snapshot()}["norm"] == 0.5
    assert {reading.stage: reading.kernel_seconds for reading in meter.lifetime()}["norm"] == 1.0
