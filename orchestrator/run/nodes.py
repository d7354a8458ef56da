"""Short calls to a node of the cluster."""

from collections.abc import Callable
from typing import TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

Answer = TypeVar("Answer")


def on_node(node: str, timeout_s: float, function: Callable[..., Answer], *given: object) -> Answer:
    """The result of a function on a node; it is called right here if that is this process's own.

    Args:
        node: The node's id in Ray.
        timeout_s: Seconds to wait for the result.
        function: The function to call there.
        given: Its arguments.

    Raises:
        RayError: The node did not answer in time.
    """
    if node == ray.get_runtime_context().get_node_id():
        return function(*given)
    there = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    ask = ray.remote(num_cpus=0, scheduling_strategy=there, max_retries=0)(function)
    answer: Answer = ray.get(ask.remote(*given), timeout=timeout_s)
    return answer
