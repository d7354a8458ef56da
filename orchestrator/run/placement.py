"""Slots for the parties on a Ray cluster: one placement-group bundle per role, on separate nodes where possible."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from parties.metering.nvml import own_cards

PROTOCOL_ROLES = ("client", "server", "dealer")
ROLES = (*PROTOCOL_ROLES, "referee")

# A logical share, so small that all four roles fit on a machine with two CPUs. How many threads a party really uses
# follows from the cores of its machine (actors.threads_for).
CPU_SHARE = 0.5
_SLICE_S = 1  # Ray waits whole seconds
_CARDS_S = 60.0

Bundle = dict[str, float]


class PlacementError(Exception):
    """The cluster lacks resources that the parties need; the message names them and the fix."""


@dataclass(frozen=True)
class Placement:
    """Reserved slots.

    Attributes:
        strategy: `STRICT_SPREAD` (one node a protocol role) or `PACK`.
        nodes: Node id of each role.
        hosts: Address of each role's node, as Ray reports it.
        gpus: GPUs of each role, possibly a fraction of one; 0 where it has none.
        cards: Identifier of the GPU of each role that has one, where NVML can read it.
    """

    strategy: str
    nodes: dict[str, str]
    hosts: dict[str, str]
    gpus: dict[str, float]
    slots: dict[str, tuple[PlacementGroup, int]]
    cards: dict[str, str] = field(default_factory=dict)

    @property
    def on_gpu(self) -> tuple[str, ...]:
        """The roles that have a GPU."""
        return tuple(role for role, share in self.gpus.items() if share)

    @property
    def shared_cards(self) -> dict[str, tuple[str, ...]]:
        """The roles on each GPU that several of them share."""
        users: dict[str, tuple[str, ...]] = {}
        for role, card in self.cards.items():
            users[card] = (*users.get(card, ()), role)
        return {card: roles for card, roles in users.items() if len(roles) > 1}

    def parties_on_node(self, role: str) -> int:
        """How many parties share the node of `role`, itself included."""
        return sum(node == self.nodes[role] for node in self.nodes.values())

    def options(self, role: str) -> dict[str, Any]:
        """Ray options that put an actor on the slot of `role`."""
        group, index = self.slots[role]
        return {
            "num_cpus": CPU_SHARE,
            "num_gpus": self.gpus[role],
            "scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index),
        }

    def release(self) -> None:
        """Give the slots back; Ray kills whatever still runs in them."""
        for group in {group.id: group for group, _ in self.slots.values()}.values():
            remove_placement_group(group)


def place(
    *, gpu: Sequence[str], wished: Sequence[str] = (), timeout_s: float, check: Callable[[], None] = lambda: None
) -> Placement:
    """Reserve a slot for every role.

    The protocol's roles get a node each where the cluster has that many nodes, and share as few as possible otherwise.
    The referee is not a party of the protocol: it runs wherever there is room, or shares the server's GPU. A role is
    bound to the nodes that offer a custom resource of its name, where some node does.

    Args:
        gpu: Roles that need a GPU; they share GPUs where there are fewer than roles.
        wished: Roles that get a GPU as well where their node has one, and compute on the CPU otherwise.
        timeout_s: How long to wait for busy resources, in seconds.
        check: Called every second while waiting; what it raises ends the wait.

    Raises:
        PlacementError: If a resource is missing or stays busy.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    spread = sum(node["Resources"].get("CPU", 0) >= CPU_SHARE for node in nodes) >= len(PROTOCOL_ROLES)
    gpu = (*gpu, *(_granted(wished, nodes) if spread else wished))
    share = _gpu_share(nodes, len(gpu)) if gpu else 0.0
    bundles = {role: _bundle(role, nodes, share if role in gpu else 0.0) for role in ROLES}
    _require(bundles, nodes)
    strategy = "STRICT_SPREAD" if spread else "PACK"
    rows: tuple[tuple[str, ...], ...] = (PROTOCOL_ROLES, ("referee",)) if spread else (ROLES,)
    guest = spread and share < 1 and {"server", "referee"} <= set(gpu)
    if guest:  # of the server: both know the weights
        rows = (PROTOCOL_ROLES,)
        bundles["server"] |= {name: 2 * bundles["server"][name] for name in ("CPU", "GPU")}
    reserved: list[PlacementGroup] = []
    try:
        for row in rows:
            reserved.append(placement_group([bundles[role] for role in row], strategy=strategy))
            _await(reserved[-1], {role: bundles[role] for role in row}, strategy, timeout_s, check)
    except BaseException:
        for group in reserved:
            remove_placement_group(group)
        raise
    slots = {role: (group, i) for group, row in zip(reserved, rows, strict=True) for i, role in enumerate(row)}
    if guest:
        slots["referee"] = slots["server"]
    at = {role: placement_group_table(group)["bundles_to_node_id"][i] for role, (group, i) in slots.items()}
    address = {node["NodeID"]: node["NodeManagerAddress"] for node in nodes}
    placement = Placement(
        strategy=strategy,
        nodes=at,
        hosts={role: address[node] for role, node in at.items()},
        gpus={role: share if role in gpu else 0.0 for role in ROLES},
        slots=slots,
    )
    return replace(placement, cards=_cards(placement)) if gpu else placement


def _cards(placement: Placement) -> dict[str, str]:
    """The GPU that Ray gives to each role, from a task on its slot."""
    ask = ray.remote(max_retries=0)(_own_card)
    asked = {role: ask.options(**placement.options(role)).remote() for role in placement.on_gpu}
    try:
        found = zip(asked, ray.get(list(asked.values()), timeout=_CARDS_S), strict=True)
    except ray.exceptions.RayError as error:
        placement.release()
        raise PlacementError(f"the GPUs cannot be looked at: {type(error).__name__}; see `ray status`") from error
    return {role: card for role, card in found if card}


def _own_card() -> str:
    return next((card.uuid for card in own_cards().cards), "")


def _granted(wished: Sequence[str], nodes: list[dict[str, Any]]) -> list[str]:
    """The roles that have a GPU where each of the protocol's has a node: the dealer's node, or any, must offer one."""
    dealers = [node for node in nodes if node["Resources"].get("dealer", 0)]
    with_gpu = [node for node in nodes if node["Resources"].get("GPU", 0) >= 1]
    dealing = any(node in with_gpu for node in dealers) if dealers else len(with_gpu) >= len(PROTOCOL_ROLES)
    return [role for role in wished if (dealing if role == "dealer" else with_gpu)]


def _bundle(role: str, nodes: list[dict[str, Any]], gpu_share: float) -> Bundle:
    bundle = {"CPU": CPU_SHARE}
    if gpu_share:
        bundle["GPU"] = gpu_share
    if role in PROTOCOL_ROLES and any(node["Resources"].get(role, 0) for node in nodes):
        bundle[role] = 1.0
    return bundle


def _gpu_share(nodes: list[dict[str, Any]], roles: int) -> float:
    """GPUs a role: a whole one where there are enough, else an equal part of those there are."""
    total = sum(node["Resources"].get("GPU", 0.0) for node in nodes)
    if not total:
        raise PlacementError(
            "the cell needs a GPU and no node of the cluster offers one; run it with gpu: false, or start Ray on a "
            "machine where nvidia-smi lists a GPU (ray start --num-gpus=N overrides what Ray finds)"
        )
    roles_a_gpu = math.ceil(roles / total)  # a role's share must lie on one GPU
    return float(1 / roles_a_gpu)


def _require(bundles: dict[str, Bundle], nodes: list[dict[str, Any]]) -> None:
    """Refuse at once what no node could ever hold."""
    for role, bundle in bundles.items():
        if not any(all(node["Resources"].get(name, 0) >= need for name, need in bundle.items()) for node in nodes):
            offers = "; ".join(f"{node['NodeManagerAddress']}: {_resources(node['Resources'])}" for node in nodes)
            raise PlacementError(
                f"no single node offers {_resources(bundle)}, which the {role} needs ({offers}); "
                f"start a node with these resources, see ray_cluster.yaml"
            )


def _await(
    group: PlacementGroup, bundles: dict[str, Bundle], strategy: str, timeout_s: float, check: Callable[[], None]
) -> None:
    until = time.monotonic() + timeout_s
    while not group.wait(_SLICE_S):
        check()
        if time.monotonic() >= until:
            wanted = ", ".join(f"{role}: {_resources(bundle)}" for role, bundle in bundles.items())
            where = "on nodes of their own" if strategy == "STRICT_SPREAD" else "on any nodes"
            raise PlacementError(
                f"no room for the parties after {timeout_s:g} s: wanted {where} {wanted}; free in the cluster: "
                f"{_resources(ray.available_resources())}; wait for other jobs (`ray status`), or add nodes"
            )


def _resources(resources: dict[str, float]) -> str:
    """Resources as words, without Ray's per-node and memory bookkeeping."""
    shown = {name: amount for name, amount in resources.items() if ":" not in name and "memory" not in name}
    return ", ".join(f"{name} {amount:g}" for name, amount in sorted(shown.items())) or "nothing"
