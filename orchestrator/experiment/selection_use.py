"""How `fss` attends to a selection in a cell whose policy has `use: auto`: by the cell's links, with a formula.

Fetched rows save the two rounds that gather scores and put weights back, and move keys and values instead. The formula
counts what differs, per layer and token; the prediction counts all (`orchestrator.predict.forecast`).
"""

from typing import TYPE_CHECKING

from orchestrator.experiment.link_time import delay_seconds, slowest_rate
from orchestrator.experiment.networks import ResolvedNetwork

if TYPE_CHECKING:
    from parties.models.spec import ModelSpec
    from parties.policies.base import Policy

_WORD = 8


def choose_use(policy: "Policy", spec: "ModelSpec", tokens: int, network: ResolvedNetwork) -> str:
    """Returns `rows` or `scores`, whichever takes less time between client and server; `scores` where neither does.

    Args:
        policy: The policy.
        spec: The model.
        tokens: Cached tokens when a step selects.
        network: The cell's links.
    """
    chosen, attended = policy.selected(tokens), policy.attended(tokens)
    ahead = any(policy.selects_ahead(layer) for layer in range(spec.n_layers))
    openings = 2 if ahead else 1  # of scores: the raw ones are opened, too
    rows = policy.selecting_heads(spec) * 2 * spec.head_dim * chosen
    scores = spec.n_heads * (openings * (tokens - attended) + chosen + (tokens - attended + chosen))
    rounds = 2 if ahead else 1  # without `ahead` fetching takes one itself
    seconds = _WORD * (rows - scores) / slowest_rate(network)
    return "rows" if seconds < rounds * delay_seconds(network, "fss") else "scores"
