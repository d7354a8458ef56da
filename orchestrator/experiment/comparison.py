"""Which comparison protocol suits a cell's links: a public choice of the driver, resolved in the cell and recorded.

`dcf` compares without a message between the parties, with long keys from the dealer; `prefix` needs hardly any
correlated randomness, and log2 k rounds.

`COSTS` holds the counts of a reference token (SmolLM2-135M, MPCache, 1,024 prompt tokens). A test holds it equal to
the prediction: counting takes seconds per cell, and a cell must be resolved before anything else about it is known.
The seconds on the links are the prediction's own (`orchestrator.experiment.link_time`).
"""

from orchestrator.experiment.link_time import PhaseCost, stored_seconds, wall_seconds
from orchestrator.experiment.networks import ResolvedNetwork
from parties.options import Comparison

COSTS: dict[Comparison, PhaseCost] = {
    "dcf": PhaseCost(721.5, {"client": 9_018_624, "server": 9_018_656}, {"client": 47_538_200, "server": 81_318_920}),
    "prefix": PhaseCost(1614.5, {"client": 9_992_641, "server": 9_992_673}, {"client": 24, "server": 35_092_920}),
}


def choose_comparison(network: ResolvedNetwork, offline: str) -> Comparison:
    """The protocol with which the reference token takes less time on these links; `dcf` where neither takes any.

    Args:
        network: The cell's links.
        offline: `streamed` or `stored`.
    """
    return min(COSTS, key=lambda comparison: token_seconds(COSTS[comparison], network, offline))


def token_seconds(cost: PhaseCost, network: ResolvedNetwork, offline: str) -> float:
    """Seconds that a token spends on the links, local work left out; stored randomness comes before, and counts too."""
    return wall_seconds(0.0, cost, network, "fss", offline) + stored_seconds(cost, network, offline)
