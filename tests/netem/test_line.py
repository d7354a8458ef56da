"""A line delivers at the rate, after the delay, in order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netem.line import Line
from netem.profile import Link

sizes = st.lists(st.integers(64, 65_536), min_size=1, max_size=50)


@given(sizes, st.floats(0.1, 10_000), st.floats(0, 100))
def test_a_burst_takes_the_delay_and_then_its_bytes_over_the_rate(
    sizes: list[int], rate_mbit: float, delay_ms: float
) -> None:
    line = Line(Link(rate_mbit=rate_mbit, delay_ms=delay_ms))
    last = [line.due(size, now=5.0) for size in sizes][-1]
    assert last == pytest.approx(5.0 + delay_ms / 1e3 + sum(sizes) * 8 / (rate_mbit * 1e6))


@given(sizes, st.lists(st.floats(0, 0.1), min_size=50, max_size=50))
def test_jitter_never_reorders(sizes: list[int], gaps: list[float]) -> None:
    line = Line(Link(delay_ms=10, jitter_ms=10))
    now, times = 0.0, list[float]()
    for size, gap in zip(sizes, gaps, strict=False):
        now += gap
        due = line.due(size, now=now)
        assert due is not None
        times.append(due)
    assert times == sorted(times)


def test_an_idle_line_has_no_backlog() -> None:
    line = Line(Link(rate_mbit=8, delay_ms=1))
    assert line.due(1000, now=0.0) == pytest.approx(0.002)
    assert line.due(1000, now=10.0) == pytest.approx(10.002)


@pytest.mark.parametrize(("compensation_ms", "expected_s"), [(0.25, 0.00075), (5.0, 0.0)])
def test_the_carriers_own_delay_is_subtracted_down_to_zero(compensation_ms: float, expected_s: float) -> None:
    assert Line(Link(delay_ms=1), compensation_ms).due(1, now=0.0) == pytest.approx(expected_s)


def test_losses_have_the_requested_rate() -> None:
    line = Line(Link(loss_pct=20))
    lost = sum(line.due(100, now=0.0) is None for _ in range(10_000))
    assert 1700 < lost < 2300
    assert line.lost == lost
    assert line.bytes == (10_000 - lost) * 100
