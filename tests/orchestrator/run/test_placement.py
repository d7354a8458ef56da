"""Slots on a cluster of three nodes (emulated on this machine by Ray)."""

from collections.abc import Iterator

import pytest
import ray

from orchestrator.run.deadline import Interrupted
from orchestrator.run.placement import PROTOCOL_ROLES, ROLES, Placement, PlacementError, place
from tests.helpers.emulated_cluster import emulated_cluster
from tests.helpers.waiting import PATIENCE_S, eventually

pytestmark = [
    pytest.mark.ray,
    # Ray leaves its own sockets and log files to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[str, str]]:
    """Node ids by the role that the node offers; one more node offers nothing but CPUs."""
    client, server, dealer = ({"num_cpus": 1, "resources": {role: 1}} for role in PROTOCOL_ROLES)
    with emulated_cluster(client, server, dealer):
        yield {role: node["NodeID"] for node in ray.nodes() for role in PROTOCOL_ROLES if role in node["Resources"]}


@pytest.fixture
def placement(nodes: dict[str, str]) -> Iterator[Placement]:
    placement = place(gpu=(), timeout_s=60)
    yield placement
    placement.release()


def test_each_party_has_the_node_that_offers_its_role(placement: Placement, nodes: dict[str, str]) -> None:
    assert placement.strategy == "STRICT_SPREAD"
    assert {role: placement.nodes[role] for role in PROTOCOL_ROLES} == nodes


def test_the_referee_shares_a_node(placement: Placement, nodes: dict[str, str]) -> None:
    assert placement.nodes["referee"] in nodes.values()
    host = next(role for role in PROTOCOL_ROLES if nodes[role] == placement.nodes["referee"])
    counts = {role: placement.parties_on_node(role) for role in ROLES}
    assert counts == {role: 2 if role in (host, "referee") else 1 for role in ROLES}


def test_an_actor_runs_where_the_placement_puts_it(placement: Placement) -> None:
    def where() -> str:
        return str(ray.get_runtime_context().get_node_id())

    seated = {
        role: ray.get(ray.remote(where).options(**placement.options(role)).remote(), timeout=PATIENCE_S)
        for role in ROLES
    }
    assert seated == placement.nodes


def test_slots_that_stay_taken_end_the_wait_and_are_named(placement: Placement) -> None:
    with pytest.raises(PlacementError) as error:
        place(gpu=(), timeout_s=1)
    for part in ("no room", "1 s", "client: CPU 0.5, client 1", "nodes of their own"):
        assert part in str(error.value)


def test_released_slots_can_be_taken_again(nodes: dict[str, str]) -> None:
    for _ in range(2):
        place(gpu=(), timeout_s=60).release()


def test_a_failed_wait_leaves_no_reservation(nodes: dict[str, str]) -> None:
    before = _settled_cpus()
    held = place(gpu=(), timeout_s=60)
    with pytest.raises(PlacementError):
        place(gpu=(), timeout_s=1)
    held.release()
    assert _settled_cpus() == before


def test_the_user_can_stop_the_wait(placement: Placement) -> None:
    def stop() -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        place(gpu=(), timeout_s=600, check=stop)


def test_a_missing_gpu_is_refused_at_once_with_the_fix(nodes: dict[str, str]) -> None:
    with pytest.raises(PlacementError, match=r"needs a GPU.*gpu: false"):
        place(gpu=("client", "server", "dealer"), timeout_s=600)


def _settled_cpus() -> float:
    """Free CPUs of the cluster, once Ray has registered releases."""
    total = ray.cluster_resources()["CPU"]
    eventually(lambda: ray.available_resources().get("CPU") == total)
    return float(ray.available_resources().get("CPU", 0.0))
