"""The actor's class, used directly: what it reports, and what it never reveals."""

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.run import actors
from orchestrator.run.actors import PartyActor, describe, own_cpus, threads_for
from parties.errors import OutOfStep, PartyError, PeerLost, PeersMissing, PeerTimeout, Unsupported
from parties.roles.reports import PartyProgress
from parties.transport.mesh import ROLES
from tests.helpers.fake_party import FakeParty

FAKE = f"{FakeParty.__module__}:FakeParty"


class Failing:
    """A party whose every method raises a given error."""

    error: Exception = PartyError("unset")

    def __init__(self, *_: Any, **__: Any) -> None:
        self.address = self.metrics_address = ("127.0.0.1", 1)

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        raise self.error

    def progress(self) -> PartyProgress:
        return PartyProgress(role="server", state="decode", stage="softmax", sent_bytes=7, received_bytes=8)


class Counting(Failing):
    """A party that reports torch's threads where it runs."""

    def run(self, job: dict[str, Any]) -> Any:
        return SimpleNamespace(to_json=lambda: {"threads": torch.get_num_threads()})


@pytest.fixture(autouse=True)
def threads_of_tests() -> Iterator[None]:
    """Gives this process its threads back, which an actor sets for its own one."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_torch_uses_the_partys_share_of_the_processors_in_whichever_thread_ray_runs_it() -> None:
    share = threads_for(1)
    torch.set_num_threads(share + 1)  # as another task of the same process may have
    actor = PartyActor("client", 1, f"{__name__}:Counting")
    assert "error" not in actor.open("127.0.0.1", 0, "s", 1.0)
    assert actor.run({}) == {"threads": share}
    with ThreadPoolExecutor(1) as other:
        assert other.submit(actor.run, {}).result() == {"threads": share}


def test_client_and_server_on_one_machine_keep_to_a_half_of_its_processors_each() -> None:
    cpus, kept = sorted(os.sched_getaffinity(0)), dict[str, set[int]]()
    for role in ROLES:
        actor = PartyActor(role, len(ROLES), f"{__name__}:Counting", beside_peer=True)
        assert "error" not in actor.open("127.0.0.1", 0, "s", 1.0)
        with ThreadPoolExecutor(1) as other:  # the affinity is the thread's
            assert "error" not in other.submit(actor.run, {}).result()
            kept[role] = other.submit(os.sched_getaffinity, 0).result()
    assert kept["client"] | kept["server"] == kept["dealer"] == kept["referee"] == set(cpus)
    if len(cpus) > 1:
        assert not kept["client"] & kept["server"]


@pytest.mark.parametrize(("cpus", "client", "server"), [([0], (), ()), ([0, 1], [0], [1]), ([4, 5, 8], [4], [5, 8])])
def test_own_cpus_are_halves(cpus: Sequence[int], client: Sequence[int], server: Sequence[int]) -> None:
    assert own_cpus("client", cpus) == client
    assert own_cpus("server", cpus) == server
    assert not own_cpus("dealer", cpus)


def failure_of(error: Exception, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(Failing, "error", error)
    actor = PartyActor("server", 1, f"{__name__}:Failing")
    assert "error" not in actor.open("127.0.0.1", 0, "s", 1.0)
    reported: dict[str, Any] = actor.run({})["error"]
    assert json.loads(json.dumps(reported)) == reported
    return reported


def test_open_returns_the_addresses_to_dial_and_scrape() -> None:
    actor = PartyActor("client", 1, FAKE)
    opened = actor.open("127.0.0.1", 0, "session", 1.0)
    assert opened["address"][0] == opened["metrics_address"][0] == "127.0.0.1"
    assert opened["address"][1] != opened["metrics_address"][1]
    hello = actor.hello()
    assert (hello["pid"], hello["niceness"]) == (os.getpid(), os.getpriority(os.PRIO_PROCESS, 0))
    assert actor.progress()["state"] == "idle"
    assert actor.close() == {}


def test_a_port_in_use_is_reported_with_its_number() -> None:
    first, second = PartyActor("client", 1, FAKE), PartyActor("server", 1, FAKE)
    host, port = first.open("127.0.0.1", 0, "session", 1.0)["address"]
    reported = second.open(host, port, "session", 1.0)["error"]
    first.close()
    assert reported["status"] == "config_error"
    assert str(port) in reported["message"]
    assert reported["role"] == "server"


def test_progress_and_close_before_open_are_harmless() -> None:
    actor = PartyActor("client", 1, FAKE)
    assert actor.progress() == {}
    assert actor.close() == {}


@pytest.mark.parametrize(
    ("error", "status", "stage", "peer"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8.00 GiB"), "oom", "softmax", None),
        (PeerLost("client", "topk", 1, 2), "party_died", "topk", "client"),
        (PeerTimeout("dealer", "gather", 1, 2, 9.0), "timeout", "gather", "dealer"),
        (OutOfStep("client", "topk", "3", "4"), "party_died", "topk", "client"),
        (PeersMissing({"dealer": "connection refused"}, 5.0), "timeout", "softmax", "dealer"),
        (Unsupported("not here; use plain"), "unsupported", "softmax", None),
        (MemoryError(), "oom", "softmax", None),
        (RuntimeError("shape mismatch"), "party_died", "softmax", None),
    ],
)
def test_an_error_becomes_status_stage_and_bytes(
    error: Exception, status: str, stage: str, peer: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported = failure_of(error, monkeypatch)
    assert (reported["status"], reported["stage"], reported["peer"]) == (status, stage, peer)
    assert (reported["role"], reported["sent_bytes"], reported["received_bytes"]) == ("server", 7, 8)
    assert str(error) in reported["message"]


def test_unexpected_errors_name_their_type_and_place(monkeypatch: pytest.MonkeyPatch) -> None:
    reported = failure_of(RuntimeError("shape mismatch"), monkeypatch)
    assert "RuntimeError" in reported["message"]
    assert Path(__file__).name in reported["message"]


@given(secret=st.integers(10**9, 10**12), kind=st.sampled_from([ValueError, KeyError, IndexError, ArithmeticError]))
def test_errors_that_quote_data_stay_in_the_process(secret: int, kind: type[Exception]) -> None:
    reported = describe(kind(f"token {secret} is out of range"), "client", None)
    assert str(secret) not in json.dumps(reported)
    assert kind.__name__ in reported["message"]


def test_stacks_show_code_and_no_values() -> None:
    secret = "the-prompt-of-the-client"  # noqa: S105 - stands for one
    stacks = PartyActor("client", 1, FAKE).stacks()
    assert "test_stacks_show_code_and_no_values" in stacks
    assert secret not in stacks


@pytest.mark.parametrize(("cpus", "parties", "threads"), [(0.25, 4, 1), (6, 4, 1), (8, 4, 2), (8, 1, 8)])
def test_a_quota_of_cpu_time_counts_as_fewer_cores(
    cpus: float, parties: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors, "usable_cpus", lambda: cpus)
    assert threads_for(parties) == threads


@given(st.integers(1, 64))
def test_parties_of_a_machine_never_use_more_threads_than_cores_unless_they_outnumber_them(parties: int) -> None:
    cores = len(os.sched_getaffinity(0))
    assert threads_for(parties) >= 1
    assert threads_for(parties) * parties <= max(cores, parties)
