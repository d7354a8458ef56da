"""Seconds on the links: rounds x delay + bytes / rate, of the way that decides."""

from typing import Any

import pytest

from orchestrator.experiment.link_time import PhaseCost, dealing_seconds, link_seconds, stored_seconds, wall_seconds
from orchestrator.experiment.networks import ResolvedNetwork, parse_network

ASYMMETRIC = {
    "name": "uneven", "rate_mbit": 100, "delay_ms": 10,
    "pairs": {"client>server": {"rate_mbit": 10, "delay_ms": 30}, "dealer>server": {"rate_mbit": 1}},
}  # fmt: skip


def network(given: Any = ASYMMETRIC) -> ResolvedNetwork:
    found = parse_network(given)
    assert isinstance(found, ResolvedNetwork)
    return found


def cost(rounds: float = 0, sent: tuple[float, float] = (0, 0), dealt: tuple[float, float] = (0, 0)) -> PhaseCost:
    return PhaseCost(rounds, dict(zip(("client", "server"), sent, strict=True)),
                     dict(zip(("client", "server"), dealt, strict=True)))  # fmt: skip


def test_a_round_of_fss_takes_the_longer_delay_and_bytes_the_slower_rate() -> None:
    asked = cost(100, (5e6, 10e6), (1e6, 2e6))
    assert link_seconds(asked, network(), "fss") == pytest.approx(100 * 0.030 + 5e6 * 8 / 10e6)
    assert dealing_seconds(asked, network()) == pytest.approx(2e6 * 8 / 1e6)


def test_a_round_of_crypten_includes_a_round_trip_to_the_dealer() -> None:
    assert link_seconds(cost(100), network(), "crypten") == pytest.approx(100 * 0.020)


def test_stored_randomness_comes_before_and_is_not_waited_for() -> None:
    asked = cost(dealt=(0, 1e6))
    dealing = dealing_seconds(asked, network())
    assert wall_seconds(1.0, asked, network(), "fss", "streamed") == dealing == pytest.approx(8.0)
    assert wall_seconds(1.0, asked, network(), "fss", "stored") == 1.0
    assert wall_seconds(9.0, asked, network(), "fss", "streamed") == 9.0
    assert [stored_seconds(asked, network(), offline) for offline in ("stored", "streamed")] == [dealing, 0.0]


def test_links_left_as_they_are_take_no_time() -> None:
    asked = cost(100, (1e9, 1e9), (1e9, 1e9))
    assert link_seconds(asked, network("none"), "fss") == dealing_seconds(asked, network("none")) == 0
