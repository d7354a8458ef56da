"""Is there memory enough for a cell? Asked before a model is loaded."""

from collections import Counter

from orchestrator.run.deadline import Deadline
from orchestrator.run.failures import CellFailure
from orchestrator.run.nodes import on_node
from orchestrator.run.placement import Placement
from parties.metering.cgroup import Memory, memory

BYTES_A_WEIGHT = 8  # a share of a weight is a 64-bit integer
SLACK_BYTES = 1_000_000_000  # four processes with torch in them, and the activations of a token
_ASK_S = 60.0


def require_memory(weights: int, placement: Placement, deadline: Deadline) -> None:
    """Refuse a cell whose shares cannot fit into the free memory of the nodes.

    A rough need: `weights` x 8 bytes for each party on a node, and some slack.

    Args:
        weights: Number of the model's parameters.
        placement: The placement of the parties.
        deadline: Asked before each node.

    Raises:
        CellFailure: With status `oom`, and what is needed and free.
    """
    for node, parties in Counter(placement.nodes.values()).items():
        deadline.check()
        usable, needed = usable_memory(node), needed_bytes(weights, parties)
        if usable.available < needed:
            host = next(placement.hosts[role] for role, at in placement.nodes.items() if at == node)
            raise CellFailure(
                status="oom",
                message=f"{host} has {usable}, and {parties} parties with {weights:,} weights "
                f"need about {needed / 1e9:.1f} GB; nothing was started. Free some memory or raise that limit, use a "
                f"smaller model, or give each party a node of its own",
            )


def needed_bytes(weights: int, parties: int) -> int:
    """The least memory of several parties on one node, each with a share of every weight, in bytes."""
    return weights * BYTES_A_WEIGHT * parties + SLACK_BYTES


def usable_memory(node: str) -> Memory:
    """Memory that new processes on a Ray node could use: the host's, or less where a cgroup limits it."""
    return on_node(node, _ASK_S, memory)
