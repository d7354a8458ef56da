"""Is there memory enough for a cell? Asked before a model is loaded."""

from collections import Counter

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.failures import CellFailure
from orchestrator.patience import Patience
from orchestrator.placement import Placement

BYTES_A_WEIGHT = 8  # a share of a weight is a 64-bit integer
SLACK_BYTES = 1_000_000_000  # four processes with torch in them, and the activations of a token
_ASK_S = 60.0


def require_memory(weights: int, placement: Placement, patience: Patience) -> None:
    """Refuse a cell whose shares cannot fit into the free memory of the nodes.

    A rough need: `weights` x 8 bytes for each party on a node, and some slack.

    Args:
        weights: Number of the model's parameters.
        placement: Which party sits where.
        patience: Asked before each node.

    Raises:
        CellFailure: With status `oom`, and what is needed and free.
    """
    for node, parties in Counter(placement.nodes.values()).items():
        patience.check()
        free, needed = free_bytes(node), needed_bytes(weights, parties)
        if free < needed:
            host = next(placement.hosts[role] for role, at in placement.nodes.items() if at == node)
            raise CellFailure(
                status="oom",
                message=f"{host} has {free / 1e9:.1f} GB free, and {parties} parties with {weights:,} weights "
                f"need about {needed / 1e9:.1f} GB; nothing was started. Free some memory, use a smaller model, or "
                f"give each party a node of its own",
            )


def needed_bytes(weights: int, parties: int) -> int:
    """What some parties on one node need at least, each with a share of every weight, in bytes."""
    return weights * BYTES_A_WEIGHT * parties + SLACK_BYTES


def free_bytes(node: str) -> int:
    """Memory that new processes on a Ray node could use, in bytes."""
    if node == ray.get_runtime_context().get_node_id():
        return int(psutil.virtual_memory().available)
    there = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    ask = ray.remote(num_cpus=0, scheduling_strategy=there, max_retries=0)(_available)
    return int(ray.get(ask.remote(), timeout=_ASK_S))


def _available() -> int:
    return int(psutil.virtual_memory().available)
