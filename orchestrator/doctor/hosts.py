"""The hosts of the cluster, each with a doctor's actor on it."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.doctor.host import HostDoctor

_ANSWER_S = 60.0


class Unanswered(Exception):  # noqa: N818 - named for the event
    """A host's actor did not answer; the message says how."""


@dataclass(frozen=True)
class Host:
    """One node of the cluster.

    Attributes:
        node: Id of the node in Ray.
        address: Data address of the node in the cluster, an IP address.
        name: The address, with the beginning of the id where several nodes share one.
    """

    node: str
    address: str
    name: str
    _actor: ActorHandle

    def ask(self, method: str, *given: Any) -> Any:
        """Calls a method of `HostDoctor` on the host and returns its result.

        Raises:
            Unanswered: The host did not answer.
        """
        return self.end(self.begin(method, *given))

    def begin(self, method: str, *given: Any) -> Any:
        """Starts a call without waiting for its result."""
        return getattr(self._actor, method).remote(*given)

    def end(self, pending: Any) -> Any:
        """Waits for the result of a call that `begin` started.

        Raises:
            Unanswered: The host did not answer.
        """
        try:
            return ray.get(pending, timeout=_ANSWER_S)
        except ray.exceptions.RayError as error:
            raise Unanswered(f"no answer from {self.name}: {type(error).__name__}") from error


@contextmanager
def doctors() -> Iterator[tuple[Host, ...]]:
    """All living hosts of the cluster that this process is connected to; their actors end with the block."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    shared = Counter(node["NodeManagerAddress"] for node in nodes)
    hosts = tuple(_host(node, alone=shared[node["NodeManagerAddress"]] == 1) for node in nodes)
    try:
        yield hosts
    finally:
        for host in hosts:
            ray.kill(host._actor)  # noqa: SLF001 - what was made here is ended here


def _host(node: dict[str, Any], *, alone: bool) -> Host:
    address = node["NodeManagerAddress"]
    there = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
    actor = ray.remote(HostDoctor).options(num_cpus=0, max_restarts=0, scheduling_strategy=there).remote()
    return Host(node["NodeID"], address, address if alone else f"{address} ({node['NodeID'][:6]})", actor)
