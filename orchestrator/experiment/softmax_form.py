"""Which form of the softmax's coarse sums suits a cell's links: a public choice, resolved in the cell and recorded.

`dpf` saves a round per layer and the openings of the coarse look-ups. It takes keys from the dealer and more local
work, in proportion to the attention scores. The formula counts what differs, per layer and token; the prediction counts
all (`orchestrator.predict.forecast`).
"""

from typing import TYPE_CHECKING

from orchestrator.experiment.link_time import PhaseCost, delay_seconds, slowest_rate, stored_seconds
from orchestrator.experiment.networks import ResolvedNetwork
from parties.options import SoftmaxForm

if TYPE_CHECKING:
    from parties.models.spec import ModelSpec
    from parties.policies.base import Policy

# Per score: what `dpf` opens less, what the server receives more, hashes of a key.
OPENED_BYTES, DEALT_BYTES, HASHES = 24, 56, 62
HASHES_PER_S = 140e6  # of a core, as `cost --calibrate` measured them; see `orchestrator.predict.local_work`


def choose_softmax(
    policy: "Policy", spec: "ModelSpec", tokens: int, network: ResolvedNetwork, *, batch: int = 1, offline: str
) -> SoftmaxForm:
    """Returns `dpf` where it takes less time than `tables`.

    Stored randomness comes before the run and counts, too. Streamed randomness comes in parallel with the run.

    Args:
        policy: The policy.
        spec: The model.
        tokens: Cached tokens when a step attends.
        network: The cell's links.
        batch: Sequences that decode side by side.
        offline: `streamed` or `stored`.
    """
    scores = batch * spec.n_heads * policy.attended(tokens)
    dealt = PhaseCost(0, {}, {"server": DEALT_BYTES * scores})
    spent = scores * HASHES / HASHES_PER_S + stored_seconds(dealt, network, offline)
    saved = delay_seconds(network, "fss") + scores * OPENED_BYTES / slowest_rate(network)
    return "dpf" if spent < saved else "tables"
