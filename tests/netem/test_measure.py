"""Retries of probes, and links that cannot be probed; the probes are scripted."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from netem import Measured, NetworkProfile, ProbeError, ShapedNetwork, preset, shape, shaping
from netem.backends import unshaped
from netem.host import Values
from netem.prober import Plan

ASKED = NetworkProfile.from_mapping({"delay_ms": 20, "rate_mbit": 100})
GOOD, OFF = Measured(40.0, 41.0, 50, 100.0, "cubic"), Measured(90.0, 95.0, 50, 100.0, "cubic")
ENDS = {"a": ("127.0.0.1", 7001), "b": ("127.0.0.1", 7002)}
FAILS = ProbeError("no probe of 127.0.0.1 port 7001: nothing arrived after the warm-up")


class Scripted:
    """A site whose probes end as given, one after the other; from then on all are good."""

    hub: str | None = None

    def __init__(self, *ends: Measured | ProbeError) -> None:
        self.ends = list(ends)
        self.asked: list[Mapping[str, Any]] = []

    def call(self, host: str, verb: str, given: Mapping[str, Any]) -> Values:
        if verb != "measure":
            return {"address": ("127.0.0.1", 1)}
        self.asked.append(given)
        end = self.ends.pop(0) if self.ends else GOOD
        if isinstance(end, ProbeError):
            raise end
        return vars(end)


@contextmanager
def network(profile: NetworkProfile, site: Scripted, patch: pytest.MonkeyPatch) -> Iterator[ShapedNetwork]:
    patch.setattr(shaping, "_PAUSE_S", 0.0)
    patch.setattr(unshaped, "obstacle", lambda _: "")  # so that nothing real has to be shaped
    with shape(profile, ENDS, backend="none", site=site) as shaped:
        yield shaped


@pytest.mark.parametrize("profile", [ASKED, preset("none")])
@pytest.mark.parametrize("failures", [1, 4])
def test_a_probe_that_fails_is_retried(profile: NetworkProfile, failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Scripted(*[FAILS] * failures)
    with network(profile, site, monkeypatch) as shaped:
        assert shaped.measure() == {("a", "b"): GOOD, ("b", "a"): GOOD}
    assert len(site.asked) == failures + 2
    assert site.asked[failures]["seconds"] == 0.5 * (failures + 1)


def test_a_probe_that_alternately_deviates_and_fails_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    with network(ASKED, Scripted(OFF, FAILS, OFF, FAILS), monkeypatch) as shaped:
        assert shaped.measure()["a", "b"] == GOOD


def test_a_shaped_link_that_cannot_be_probed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Scripted(*[FAILS] * 5)
    with network(ASKED, site, monkeypatch) as shaped, pytest.raises(ProbeError, match="nothing arrived"):
        shaped.measure()
    assert len(site.asked) == 5


def test_the_last_reading_counts_if_later_probes_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    with network(ASKED, Scripted(OFF, *[FAILS] * 4), monkeypatch) as shaped:
        measured = shaped.measure()
        assert measured["a", "b"] == OFF
        assert len(shaped.deviations(measured)) == 1


def test_an_unshaped_link_that_cannot_be_probed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Scripted(*[FAILS] * 6)
    with network(preset("none"), site, monkeypatch) as shaped:
        measured = shaped.measure()
        assert measured == {}
        assert shaped.deviations(measured) == ()
        assert [reading.measured_before for reading in shaped.readings(measured)] == [None, None]
    assert len(site.asked) == 6  # once a pair failed each time, the rest is probed once


def test_a_silent_link_is_not_waited_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1e3] * 2)
    monkeypatch.setattr("netem.shaping.time", SimpleNamespace(monotonic=lambda: next(clock), sleep=time.sleep))
    site = Scripted(FAILS, FAILS)
    with network(preset("none"), site, monkeypatch) as shaped:
        assert shaped.measure() == {}
    assert len(site.asked) == 2


def test_an_exception_of_the_watcher_ends_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    site, seen = Scripted(FAILS), []

    def watch(pair: tuple[str, str]) -> None:
        seen.append(pair)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with network(ASKED, site, monkeypatch) as shaped, pytest.raises(KeyboardInterrupt):
        shaped.measure(watch=watch)
    assert seen == [("a", "b"), ("a", "b"), ("b", "a")]
    assert len(site.asked) == 2


def test_a_probe_receives_the_expected_rate_and_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Scripted()
    with network(ASKED, site, monkeypatch) as shaped:
        shaped.measure(0.5)
    assert site.asked[0]["rate_mbit"] == 100
    assert site.asked[0]["limit_s"] == Plan(0.04, 100, 0.5).limit_s


@pytest.mark.parametrize("rtt_s", [0.0, 0.0008, 0.04, 0.6, 4.0])
@pytest.mark.parametrize("rate_mbit", [None, 0.1, 1, 100, 5000])
def test_a_plan_sends_enough_and_waits_for_all_of_it(rtt_s: float, rate_mbit: float | None) -> None:
    plan = Plan(rtt_s, rate_mbit, 0.5)
    assert plan.warm_up_s >= rtt_s
    assert plan.warm_up_s <= max(0.2, 10 * rtt_s)
    assert plan.counting_s >= max(0.5, min(rtt_s, 4 * rtt_s))
    assert math.isinf(plan.bytes_per_second) or plan.counting_s * plan.bytes_per_second >= 24 << 10
    assert plan.limit_s >= 30 + plan.sending_s * 1.25 + 4 * rtt_s


def test_a_plan_for_a_link_known_to_be_slow_warms_up_for_as_long_as_its_pipe_takes_to_fill() -> None:
    assert Plan(0.6, 0.1, 0.5).warm_up_s == pytest.approx(0.6)  # 7.5 kB under way: the first window fills it
    assert Plan(0.6, 1, 0.5).warm_up_s == pytest.approx(4 * 0.6)  # 75 kB: three doublings of 14.6 kB
    assert Plan(0.6, None, 0.5).warm_up_s == pytest.approx(10 * 0.6)
