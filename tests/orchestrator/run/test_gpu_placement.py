"""GPUs as Ray counts them: each party of a `gpu: true` cell has one, or a part of one. The node only declares two."""

from collections.abc import Iterator
from typing import Any

import pytest
import ray

from orchestrator.run.placement import PROTOCOL_ROLES, PlacementError, _granted, place
from tests.helpers.emulated_cluster import emulated_cluster
from tests.helpers.waiting import PATIENCE_S

pytestmark = [
    pytest.mark.ray,
    # Ray leaves its own sockets and log files to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
GPUS = 2


@pytest.fixture(scope="module", autouse=True)
def node() -> Iterator[None]:
    """One node that declares two GPUs, independently of the machine's."""
    with emulated_cluster({"num_cpus": 2, "num_gpus": GPUS}):
        yield


def given(roles: tuple[str, ...]) -> dict[str, list[str]]:
    """The GPUs that Ray lets a task on each slot see."""

    def seen() -> list[str]:
        import os

        return [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]

    placement = place(gpu=roles, timeout_s=60)
    try:
        tasks = [ray.remote(seen).options(**placement.options(role)).remote() for role in roles]
        return dict(zip(roles, ray.get(tasks, timeout=PATIENCE_S), strict=True))
    finally:
        placement.release()


def test_each_role_has_a_gpu_of_its_own_where_there_are_enough() -> None:
    devices = given(("client", "server"))
    assert sorted(devices.values()) == [["0"], ["1"]]


def test_a_share_of_a_gpu_is_on_one_gpu() -> None:
    placement = place(gpu=PROTOCOL_ROLES, timeout_s=60)
    try:
        assert {role: placement.gpus[role] for role in PROTOCOL_ROLES} == dict.fromkeys(PROTOCOL_ROLES, 0.5)
        assert placement.gpus["referee"] == 0
    finally:
        placement.release()
    devices = given(PROTOCOL_ROLES)
    assert all(len(seen) == 1 for seen in devices.values())
    assert {seen[0] for seen in devices.values()} == {"0", "1"}


def test_a_gpu_that_another_job_holds_ends_the_wait_and_is_named() -> None:
    held = place(gpu=("client", "server"), timeout_s=60)
    try:
        with pytest.raises(PlacementError, match=r"no room for the parties after 1 s: .*GPU 1"):
            place(gpu=("referee",), timeout_s=1)
    finally:
        held.release()


def a_node(**resources: float) -> dict[str, Any]:
    return {"Resources": {"CPU": 1.0, **resources}}


@pytest.mark.parametrize(
    ("nodes", "granted"),
    [
        ([a_node(client=1, GPU=1), a_node(server=1, GPU=1), a_node(dealer=1)], ["referee"]),
        ([a_node(client=1, GPU=1), a_node(server=1, GPU=1), a_node(dealer=1, GPU=1)], ["dealer", "referee"]),
        ([a_node(GPU=4), a_node(GPU=4), a_node()], ["referee"]),
        ([a_node(GPU=1), a_node(GPU=1), a_node(GPU=1)], ["dealer", "referee"]),
        ([a_node(), a_node(), a_node()], []),
    ],
)
def test_a_dealer_has_a_gpu_only_if_its_node_does(nodes: list[dict[str, Any]], granted: list[str]) -> None:
    assert _granted(("dealer", "referee"), nodes) == granted
