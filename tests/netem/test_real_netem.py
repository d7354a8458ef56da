"""Our commands on a stock kernel with netem, compared with the relay: a lab under Debian's user-mode-linux."""

from typing import Any

import pytest

from tests.helpers.needs import needs
from tests.helpers.real_netem import TOLERANCE
from tests.helpers.uml import boot

ASKED = {  # RTT in ms; Mbit/s of a>b and b>a
    "thin": (80, 20, 20),
    "asymmetric": (35, 5, 20),
}

pytestmark = [
    pytest.mark.links,
    needs("user-mode-linux"),
]


@pytest.fixture(scope="module")
def results() -> list[dict[str, Any]]:
    return boot(("thin", "asymmetric", "jitter", "loss"), 800)


def of(results: list[dict[str, Any]], profile: str, backend: str) -> dict[str, Any]:
    return next(one for one in results if (one.get("profile"), one.get("backend")) == (profile, backend))


@pytest.mark.parametrize("backend", ["tc", "relay"])
@pytest.mark.parametrize("profile", ASKED)
def test_round_trip_and_rate_of_each_direction_are_as_requested(
    results: list[dict[str, Any]], profile: str, backend: str
) -> None:
    rtt, there, back = ASKED[profile]
    links = of(results, profile, backend)["links"]
    slowest = 1 - TOLERANCE[backend].rate_pct / 100
    for pair, rate in (("a>b", there), ("b>a", back)):
        assert links[pair]["rtt_ms"] == pytest.approx(rtt, rel=0.1, abs=4)
        assert slowest * rate < links[pair]["rate_mbit"] < 1.2 * rate


def test_jitter_and_loss_are_there_by_both(results: list[dict[str, Any]]) -> None:
    for backend in ("tc", "relay"):
        jittered = of(results, "jitter", backend)["links"]["a>b"]
        assert jittered["rtt_ms"] == pytest.approx(40, abs=10)
        assert jittered["rtt_p99_ms"] - jittered["rtt_ms"] > 1
        lossy = of(results, "loss", backend)["links"].values()
        # 2 % leave TCP 3 to 20 Mbit/s at 20 ms, and a lucky second 90; without loss it would be hundreds
        assert min(link["rate_mbit"] for link in lossy) < 100


def test_the_rules_are_netem_under_htb_and_gone_afterwards(results: list[dict[str, Any]]) -> None:
    for one in results:
        if one.get("backend") == "tc":
            assert "qdisc htb" in one["rules"]
            assert "qdisc netem" in one["rules"]
        if "clean" in one:
            assert one["clean"]


def test_a_kernel_with_netem_gets_the_back_end_tc(results: list[dict[str, Any]]) -> None:
    assert results[-1] == {"auto": "tc"}
