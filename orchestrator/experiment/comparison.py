"""Which way of comparing suits a cell's links: public, decided by the driver, told to all parties, in the record.

`dcf` compares without a message between the parties, out of long keys from the dealer; `prefix` needs hardly any
material and log2 k rounds. `COSTS` holds what a reference token takes either way (SmolLM2-135M, MPCache, 1,024 prompt
tokens). A test holds it equal to the prediction of `parties.engines.fss.cost.cost`: to walk each cell would take
seconds, and a cell must be resolved before anything else about it is known.

A round takes one way to the peer. Streamed material travels while the parties talk, so the slower of the two decides;
stored material comes before, and both count. Without delay and with any rate at all the dealer's link decides, without
a limit on that link the rounds do: `dcf` wherever a token's rounds take longer than its material.
"""

from dataclasses import dataclass

from netem import NetworkProfile
from orchestrator.experiment.networks import Network
from parties.options import Comparison


@dataclass(frozen=True)
class TokenCost:
    """What a reference token takes.

    Attributes:
        rounds: between client and server.
        offline_bytes: from the dealer to the server, who is sent more than the client.
    """

    rounds: float
    offline_bytes: float


COSTS: dict[Comparison, TokenCost] = {"dcf": TokenCost(932.5, 67.2e6), "prefix": TokenCost(1930.5, 32.43e6)}


def choose_comparison(network: Network, offline: str) -> Comparison:
    """The way that takes less time on these links; `dcf` where neither takes any.

    Args:
        network: the cell's links.
        offline: `streamed` or `stored`.
    """
    profile = network.profile()
    return min(COSTS, key=lambda how: token_seconds(COSTS[how], profile, offline))


def token_seconds(cost: TokenCost, profile: NetworkProfile, offline: str) -> float:
    """Seconds that a token spends on the links, local work aside."""
    pairs = (("client", "server"), ("server", "client"))
    talking = cost.rounds * max(profile.link(*pair).delay_ms for pair in pairs) / 1e3
    rate = profile.link("dealer", "server").rate_mbit
    dealing = 0.0 if rate is None else 8 * cost.offline_bytes / (rate * 1e6)
    return max(talking, dealing) if offline == "streamed" else talking + dealing
