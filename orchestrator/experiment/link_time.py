"""Traffic of a cell, and how long the links of its network take for it: rounds x delay + bytes / rate.

The one place where seconds follow from links: predictions and the choice of a comparison (`comparison: auto`) use it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.experiment.networks import ResolvedNetwork

PARTIES = ("client", "server")
_WAYS = (PARTIES, PARTIES[::-1])


@dataclass(frozen=True)
class StageCost:
    """Online traffic of one stage: rounds as the client counts them, bytes that each party sends."""

    stage: str
    rounds: float
    sent: Mapping[str, float]


@dataclass(frozen=True)
class PhaseCost:
    """Traffic of a prompt, or of all tokens of a cell.

    Attributes:
        rounds: Online.
        sent: Online bytes that each of client and server sends.
        dealt: Offline bytes that each of them receives from the dealer.
        stages: Stages of the online phase, in their order; empty for an estimate.
        retries: Expected number of segments that are run again by chance, which the other amounts leave out.
    """

    rounds: float
    sent: Mapping[str, float]
    dealt: Mapping[str, float]
    stages: tuple[StageCost, ...] = ()
    retries: float = 0.0

    @property
    def handled(self) -> float:
        """All bytes together: roughly, local work is in proportion to them."""
        return sum(self.sent.values()) + sum(self.dealt.values())


def link_seconds(cost: PhaseCost, network: ResolvedNetwork, engine: str) -> float:
    """Seconds that the links between client and server take, with the values that the experiment asks for."""
    sending = max(cost.sent[src] / _rate(network, src, dst) for src, dst in _WAYS)
    return cost.rounds * delay_seconds(network, engine) + sending


def delay_seconds(network: ResolvedNetwork, engine: str) -> float:
    """Seconds that a round is on its way.

    Both parties send at once, so a round of `fss` takes the longer way once. `crypten` asks the dealer before each
    round, and the opening's own way is hidden behind that: a round takes the way to the dealer and back.
    """
    if engine == "crypten":
        return _delay(network, "client", "dealer") + _delay(network, "dealer", "client")
    return max(_delay(network, src, dst) for src, dst in _WAYS)


def slowest_rate(network: ResolvedNetwork) -> float:
    """Bytes per second of the slower way between client and server."""
    return min(_rate(network, src, dst) for src, dst in _WAYS)


def dealing_seconds(cost: PhaseCost, network: ResolvedNetwork) -> float:
    """Seconds that the slower of the dealer's two links takes for the correlated randomness."""
    return max(size / _rate(network, "dealer", role) for role, size in cost.dealt.items())


def stored_seconds(cost: PhaseCost, network: ResolvedNetwork, offline: str) -> float:
    """Seconds that correlated randomness takes before a run: none where the dealer streams it during the run."""
    return dealing_seconds(cost, network) if offline == "stored" else 0.0


def wall_seconds(local: float, cost: PhaseCost, network: ResolvedNetwork, engine: str, offline: str) -> float:
    """Seconds of local work and links; a dealer that streams in parallel is waited for if it takes longer."""
    online = local + link_seconds(cost, network, engine)
    return online if offline == "stored" else max(online, dealing_seconds(cost, network))


def _delay(network: ResolvedNetwork, src: str, dst: str) -> float:
    """Seconds one way; 0 for links left as they are."""
    return network.link(src, dst).delay_ms / 1e3


def _rate(network: ResolvedNetwork, src: str, dst: str) -> float:
    """Bytes per second; infinite for links left as they are."""
    rate = network.link(src, dst).rate_mbit
    return rate * 1e6 / 8 if rate else math.inf
