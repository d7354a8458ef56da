"""Findings of the doctor from the replies of hosts."""

import socket
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.doctor import capacity
from orchestrator.doctor.capacity import RECORD_BYTES, disk, memory, need, records
from orchestrator.doctor.clocks import LIMIT_S, Exchange, Offset, clock, offset
from orchestrator.doctor.finding import Verdict
from orchestrator.doctor.gpus import cards, gpus
from orchestrator.doctor.host import HostDoctor, installed_versions
from orchestrator.doctor.hosts import Unanswered
from orchestrator.doctor.reach import Endpoint, reach
from orchestrator.doctor.software import software
from orchestrator.experiment.cells import expand
from orchestrator.predict.memory import memory_needs, together
from orchestrator.records.snapshot import Snapshot
from orchestrator.records.store import RecordStore
from orchestrator.run.placement import ROLES, Placement
from parties.metering.cgroup import Memory
from parties.metering.nvml import Card
from tests.helpers import samples

DRIVER = {"python": "3.11.7", "ray": "2.60.0", "torch": "2.13.0", "code": "abc", "kernel": "Linux 6"}
SECONDS = st.floats(min_value=1e-4, max_value=10)


@dataclass(eq=False)
class NearHost:
    """A host whose doctor runs in this process; the replies to some verbs may be replaced."""

    address: str = "127.0.0.1"
    name: str = "near"
    node: str = "n1"
    instead: dict[str, Any] = field(default_factory=dict)
    doctor: HostDoctor = field(default_factory=HostDoctor)

    def begin(self, method: str, *given: Any) -> Any:
        return lambda: self.instead[method] if method in self.instead else getattr(self.doctor, method)(*given)

    def end(self, asked: Any) -> Any:
        answer = asked()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ask(self, method: str, *given: Any) -> Any:
        return self.end(self.begin(method, *given))

    def close(self) -> None:
        for server in self.doctor._servers:
            server.close()


@pytest.fixture
def pair() -> Any:
    hosts = NearHost("127.0.0.2", "left"), NearHost("127.0.0.3", "right", "n2")
    yield hosts
    for host in hosts:
        host.close()


def test_equal_software_is_fine_with_different_kernels() -> None:
    (found,) = software(DRIVER, {"far": {**DRIVER, "kernel": "Linux 5"}})
    assert found.verdict is Verdict.OK
    assert "torch 2.13.0" in found.found


@pytest.mark.parametrize(
    ("name", "theirs", "fix"),
    [
        ("torch", "2.12.0", "pip install -c constraints.txt torch==2.13.0"),
        ("python", "3.12.1", "give this host Python 3.11.7"),
        ("code", "def", "the driver's version of mpcache-bench"),
        ("ray", None, "ray==2.60.0"),
    ],
)
def test_a_version_that_differs_is_named_with_both_and_the_fix(name: str, theirs: str | None, fix: str) -> None:
    far = {key: value for key, value in {**DRIVER, name: theirs}.items() if value is not None}
    near, other = software(DRIVER, {"near": DRIVER, "far": far})
    assert near.verdict is Verdict.OK
    assert (other.verdict, other.where) == (Verdict.FIX, "far")
    assert theirs is None or theirs in other.found
    assert DRIVER[name] in other.found
    assert fix in other.fix


def test_a_package_that_only_the_other_host_has_is_reported() -> None:
    (found,) = software(DRIVER, {"far": {**DRIVER, "crypten": "0.4.1"}})
    assert found.verdict is Verdict.FIX
    assert "crypten" in found.fix


def test_this_program_has_a_digest_that_stays() -> None:
    assert len(installed_versions()["code"]) == 12
    assert installed_versions()["code"] == HostDoctor().versions()["code"]


@given(st.floats(-1e5, 1e5), st.lists(st.tuples(SECONDS, SECONDS), min_size=1, max_size=8))
def test_an_offset_is_right_within_its_uncertainty(ahead: float, trips: list[tuple[float, float]]) -> None:
    found = offset(Exchange(10.0, 10.0 + there + ahead, 10.0 + there + back) for there, back in trips)
    assert abs(found.seconds - ahead) <= found.uncertainty + 1e-9
    assert found.uncertainty == pytest.approx(min(map(sum, trips)) / 2)


def test_a_clock_that_is_surely_off_is_to_be_fixed_and_one_that_may_be_is_not() -> None:
    off = clock("far", Offset(-30.0, 0.1))
    assert off.verdict is Verdict.FIX
    assert "-30000.0 ms" in off.found
    assert "NTP" in off.fix
    assert clock("far", Offset(LIMIT_S / 2, 0.01)).verdict is Verdict.OK
    assert clock("far", Offset(LIMIT_S * 2, LIMIT_S * 3)).verdict is Verdict.NOTE


def test_two_hosts_reach_each_other_and_round_trips_are_reported(pair: Any) -> None:
    found = list(reach(pair, [Endpoint(host, host.address) for host in pair]))
    assert all(finding.verdict is Verdict.OK for finding in found)
    assert [finding.where for finding in found if finding.check == "reach"] == ["right > left", "left > right"]
    assert all("round trip" in finding.found for finding in found if finding.check == "reach")


def test_a_taken_port_is_named_with_its_role(pair: Any) -> None:
    with socket.create_server(("127.0.0.2", 0)) as taken:
        port = taken.getsockname()[1]
        (found,) = reach(pair, [Endpoint(pair[0], "127.0.0.2", port, "server")])
    assert (found.check, found.verdict) == ("port", Verdict.FIX)
    assert f"127.0.0.2 port {port}" in found.found
    assert "data_ports.server" in found.fix


def test_an_address_that_no_interface_has_is_reported(pair: Any) -> None:
    (found,) = reach(pair, [Endpoint(pair[0], "192.0.2.77")])
    assert found.verdict is Verdict.FIX
    assert "--node-ip-address" in found.fix


def test_an_unreachable_pair_is_the_only_one_to_fix(pair: Any) -> None:
    with socket.create_server(("127.0.0.3", 0)) as closed:
        address = closed.getsockname()
    pair[1].instead["listen"] = {"address": address}  # it listens and cannot be reached
    found = [one for one in reach(pair, [Endpoint(host, host.address) for host in pair]) if one.check == "reach"]
    assert {one.where: one.verdict for one in found} == {"right > left": Verdict.OK, "left > right": Verdict.FIX}
    (broken,) = (one for one in found if one.verdict is Verdict.FIX)
    assert "127.0.0.3" in broken.found
    assert "left" in broken.fix


def test_a_host_that_does_not_answer_is_reported_and_ends_nothing(pair: Any) -> None:
    pair[0].instead["rtt"] = Unanswered("no answer from left: ActorDiedError")
    found = list(reach(pair, [Endpoint(host, host.address) for host in pair]))
    (broken,) = (one for one in found if one.verdict is Verdict.FIX)
    assert broken.where == "left > right"
    assert "ActorDiedError" in broken.found


def test_a_cell_needs_the_memory_of_a_similar_one_if_that_exceeds_its_weights() -> None:
    cell = samples.cell()
    needs = memory_needs(cell)
    bound, source = need(cell, ["client", "server"], [])
    assert bound == together([needs["client"], needs["server"]])
    assert "not measured" in source
    record = samples.record(cell)
    took = {role: party.model_copy(update={"peak_rss_bytes": 3 * 10**9}) for role, party in record.parties.items()}
    past = [record.model_copy(update={"parties": took})]
    assert need(cell, ["client", "server"], past) == (
        6 * 10**9,
        f"measured at {cell.seq_len} tokens, record {record.id}",
    )
    other = samples.cell(policies=["mpcache"])
    assert need(other, ["client"], past)[0] == memory_needs(other)["client"].peak


@pytest.mark.parametrize(("free", "verdict"), [(10**12, Verdict.OK), (10**8, Verdict.FIX)])
def test_memory_is_held_against_the_most_demanding_cell(
    free: int, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "usable_memory", lambda _: Memory(10**12, free, "the host"))
    cell = samples.cell()
    slots = Placement("PACK", dict.fromkeys(ROLES, "n1"), dict.fromkeys(ROLES, "127.0.0.1"), {}, {})
    near: Any = NearHost()
    (found,) = memory([near], slots, [cell], [])
    assert found.verdict is verdict
    assert "client, server, dealer, referee need about 2.4 GB (computed for 128 tokens" in found.found
    (bare,) = memory([near], slots, [], [])
    assert bare.verdict is Verdict.NOTE


def test_the_gpus_of_a_host_are_listed_with_what_ray_may_use_and_what_is_missing() -> None:
    card = Card(0, "GPU-a", "H1", 143 * 10**9, 100 * 10**9)
    found = {"cards": [asdict(card), asdict(card) | {"index": 1, "uuid": "GPU-b", "partitioned": True}]}
    near: Any = NearHost(instead={"gpus": {**found, "driver": "580.1", "problem": "", "visible": "1"}})
    whole, seen, divided = cards([near])
    assert whole.found == ("2, driver 580.1: GPU 0 (H1), 100.0 of 143.0 GB free; GPU 1 (H1), 100.0 of 143.0 GB free")
    assert seen.found == "CUDA_VISIBLE_DEVICES=1 leaves Ray: 1"
    assert "MIG divides GPU 1" in divided.found
    near.instead["gpus"] = {"cards": [], "driver": "", "problem": "NVML: Driver Not Loaded", "visible": None}
    (none,) = cards([near])
    assert (none.verdict, none.found) == (Verdict.NOTE, "none can be read: NVML: Driver Not Loaded")


@pytest.mark.parametrize(("free", "verdict"), [(10**12, Verdict.OK), (10**8, Verdict.FIX)])
def test_parties_on_one_gpu_are_reported_and_their_memory_is_added(
    free: int, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Task:
        """A task of Ray that is done."""

        def options(self, **_: Any) -> "Task":
            return self

        def remote(self) -> dict[str, Any]:
            return {"name": "H1", "free": free}

    monkeypatch.setattr(ray, "remote", lambda _: Task())
    monkeypatch.setattr(ray, "get", lambda answer, **_: answer)
    monkeypatch.setattr(Placement, "options", lambda *_: {})
    share, at = dict.fromkeys(("client", "dealer"), 0.5), dict.fromkeys(ROLES, "n1")
    slots = Placement("PACK", at, dict.fromkeys(ROLES, "near"), share, {}, dict.fromkeys(share, "GPU-a"))
    cell = samples.cell(engines=["fss"], gpu=True)
    *each, together_, room = gpus(("client",), slots, [cell])
    assert [one.where for one in each] == ["near, client", "near, dealer"]
    assert together_.found == "client and dealer share it: their work and their memory add up"
    assert room.verdict is verdict
    assert "client, dealer need about" in room.found


def test_free_disk_space_is_that_of_the_nearest_existing_folder(tmp_path: Path) -> None:
    assert disk(tmp_path / "new" / "run", 3, []).verdict is Verdict.OK
    full = disk(tmp_path, 10**18 // RECORD_BYTES, [])
    assert full.verdict is Verdict.FIX
    assert "--out" in full.fix
    file = tmp_path / "file"
    file.touch()
    assert disk(file / "run", 1, []).verdict is Verdict.FIX


def test_inputs_that_a_run_would_refuse_are_reported(tmp_path: Path) -> None:
    asked = samples.experiment()
    assert records(tmp_path / "new", asked).verdict is Verdict.OK
    assert records(tmp_path / "new", asked).found == "cells with a record: none; the run can go on"
    assert not (tmp_path / "new").exists()
    with RecordStore(tmp_path / "out") as store:
        Snapshot(store, asked, expand(asked))
        store.append(samples.record(expand(asked)[0]).model_copy(update={"experiment": asked.name}))
        store.append(samples.failure(expand(asked)[1]).model_copy(update={"experiment": asked.name}))
        store.append(samples.record(expand(asked)[0]).model_copy(update={"experiment": asked.name}))  # once more
    found = records(tmp_path / "out", asked)
    assert found.verdict is Verdict.OK
    assert found.found.startswith("cells with a record: 1 ok, 1 ")
    assert found.found.endswith("; the run can go on; `--retry failed` runs 1 of them again")
    edited = asked.model_copy(update={"seed": asked.seed + 1})
    found = records(tmp_path / "out", edited)
    assert found.verdict is Verdict.FIX
    assert "seed" in found.found
    missing = asked.model_copy(update={"prompt": asked.prompt.model_copy(update={"text_file": str(tmp_path / "gone")})})
    assert "gone" in records(tmp_path / "new", missing).found
