"""Rules are added and removed with a lease; foreign rules stay. The `tc` of these tests only logs its calls."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from netem import ForeignQdisc, Link, ShapingError, janitor
from netem.flows import Flow, Ports
from netem.lease import Lease, leases
from netem.process import environment
from netem.state import started
from netem.tc_apply import apply
from netem.tc_run import execute, remove, root_of
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.slow

FLOWS = [Flow("192.0.2.1", "192.0.2.2", (Ports(7000),), Link(rate_mbit=10, delay_ms=5))]

# Knows one device, eth9, by the qdiscs in a file; fails at the command whose words are in another. One at a time, as
# with the kernel.
FAKE_TC = """#!{python}
import fcntl, json, os, pathlib, sys
folder = pathlib.Path("{folder}")
words = sys.argv[1:]
turn = os.open(folder, os.O_RDONLY)
fcntl.flock(turn, fcntl.LOCK_EX)
with (folder / "log").open("a") as log:
    log.write(" ".join(words) + "\\n")
fail = folder / "fail"
if fail.exists() and fail.read_text() in " ".join(words):
    sys.exit("Error: asked to fail.")
state = folder / "qdiscs"
qdiscs = json.loads(state.read_text())
if "eth9" not in words:
    sys.exit('Cannot find device "' + words[words.index("dev") + 1] + '"')
if "show" in words:
    print("{{" if (folder / "garbage").exists() else json.dumps(qdiscs))
elif words[:2] == ["qdisc", "add"]:
    place = {{"root": True}} if "root" in words else {{"parent": words[words.index("parent") + 1]}}
    at = words.index("handle")
    qdiscs = [q for q in qdiscs if q["handle"] != "0:"]
    qdiscs.append({{"kind": words[at + 2], "handle": words[at + 1], **place}})
elif words[:2] == ["qdisc", "del"]:
    if "handle" in words and words[words.index("handle") + 1] not in [q["handle"] for q in qdiscs]:
        sys.exit("Error: Invalid handle.")
    qdiscs = [{{"kind": "noqueue", "handle": "0:", "root": True}}]
draft = folder / "draft"
draft.write_text(json.dumps(qdiscs))
draft.rename(state)
"""
DEFAULT = [{"kind": "noqueue", "handle": "0:", "root": True}]


class FakeTc:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.qdiscs = DEFAULT
        program = folder / "tc"
        program.write_text(FAKE_TC.format(python=sys.executable, folder=folder))
        program.chmod(0o755)

    @property
    def qdiscs(self) -> list[dict[str, Any]]:
        return json.loads((self.folder / "qdiscs").read_text())

    @qdiscs.setter
    def qdiscs(self, value: list[dict[str, Any]]) -> None:
        (self.folder / "qdiscs").write_text(json.dumps(value))

    def fail_at(self, words: str) -> None:
        (self.folder / "fail").write_text(words)

    @property
    def log(self) -> list[str]:
        return (self.folder / "log").read_text().splitlines()


@pytest.fixture
def tc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: Path) -> Iterator[FakeTc]:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    yield FakeTc(tmp_path)
    for lease in leases():
        lease.drop()
    assert eventually(lambda: not janitor_runs(state))


def janitor_runs(state: Path) -> bool:
    """Whether a janitor holds the lock of this network namespace."""
    locks = [os.open(path, os.O_RDWR) for path in (state / "janitors").glob("*.lock")]
    try:
        return any(locked(descriptor) for descriptor in locks)
    finally:
        for descriptor in locks:
            os.close(descriptor)


def janitors(state: str) -> list[psutil.Process]:
    """The janitor processes that look after this folder of leases."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "netem.janitor" in process.cmdline() and process.environ().get("MPCACHE_BENCH_STATE") == state:
                found.append(process)
    return found


def locked(descriptor: int) -> bool:
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def a_dead_process() -> int:
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


def test_rules_go_on_and_come_off_and_the_device_is_as_before(tc: FakeTc) -> None:
    lease = apply("eth9", FLOWS, "a run", 60)
    assert [qdisc["kind"] for qdisc in tc.qdiscs] == ["htb", "netem"]
    assert leases() == (lease,)
    assert remove(lease)
    assert tc.qdiscs == DEFAULT
    assert leases() == ()
    assert not remove(lease)


@pytest.mark.parametrize("command", ["qdisc add dev eth9 root", "class add", "netem", "filter add"])
def test_a_failing_command_is_named_and_all_before_it_taken_back(tc: FakeTc, command: str) -> None:
    tc.fail_at(command)
    with pytest.raises(ShapingError, match=rf"`tc .*{command}.*asked to fail"):
        apply("eth9", FLOWS, "a run", 60)
    assert tc.qdiscs == DEFAULT
    assert leases() == ()


def test_a_foreign_root_is_refused_by_name_and_left_alone(tc: FakeTc) -> None:
    tc.qdiscs = foreign = [{"kind": "fq", "handle": "8001:", "root": True}]
    with pytest.raises(ForeignQdisc, match=r"eth9 has the root qdisc fq 8001:, not ours.*tc qdisc del dev eth9 root"):
        apply("eth9", FLOWS, "a run", 60)
    assert tc.qdiscs == foreign
    assert not any("add" in line or "del" in line for line in tc.log)


def test_a_foreign_root_is_replaced_on_request(tc: FakeTc) -> None:
    tc.qdiscs = [{"kind": "fq", "handle": "8001:", "root": True}]
    remove(apply("eth9", FLOWS, "a run", 60, replace=True))
    assert tc.qdiscs == DEFAULT


@pytest.mark.parametrize("replace", [False, True])
def test_the_rules_of_another_run_are_never_replaced_and_the_run_is_named(tc: FakeTc, replace: bool) -> None:
    first = apply("eth9", FLOWS, "the first run", 60)
    with pytest.raises(ForeignQdisc, match=rf"the first run of process {os.getpid()}"):
        apply("eth9", FLOWS, "a second run", 60, replace=replace)
    assert tc.qdiscs[0]["handle"] == f"{first.handle:x}:"


def test_rules_whose_time_is_up_make_way(tc: FakeTc) -> None:
    Lease.take("an old run", "eth9", 0x3000, -1)
    tc.qdiscs = [{"kind": "htb", "handle": "3000:", "root": True}]
    second = apply("eth9", FLOWS, "a new run", 60)
    assert tc.qdiscs[0]["handle"] == f"{second.handle:x}:"
    assert eventually(lambda: leases() == (second,))


def test_rules_that_a_janitor_takes_off_meanwhile_are_not_mistaken_for_foreign_ones(
    tc: FakeTc, monkeypatch: pytest.MonkeyPatch
) -> None:
    Lease.take("an old run", "eth9", 0x3000, -1)
    tc.qdiscs = [{"kind": "htb", "handle": "3000:", "root": True}]
    monkeypatch.setattr("netem.tc_apply.root_of", lambda device: (root_of(device), janitor.clean())[0])
    second = apply("eth9", FLOWS, "a new run", 60)
    assert leases() == (second,)


def test_a_janitor_that_is_faster_is_not_a_failure(tc: FakeTc, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = apply("eth9", FLOWS, "a run", 60)

    def late(words: tuple[str, ...]) -> str:
        if "del" in words:
            execute(words)  # the janitor's
        return execute(words)

    monkeypatch.setattr("netem.tc_run.execute", late)
    assert not remove(lease)
    assert tc.qdiscs == DEFAULT
    assert leases() == ()


def test_the_janitor_removes_expired_rules_and_leaves_the_rest(tc: FakeTc) -> None:
    lease = apply("eth9", FLOWS, "a short run", 1.0)
    assert any("add" in line for line in tc.log)
    assert eventually(lambda: tc.qdiscs == DEFAULT and not lease.path.exists())


def test_the_janitor_outlives_the_driver_that_is_killed(tc: FakeTc) -> None:
    script = (
        "import os, signal; from netem.tc_apply import apply; from tests.netem.test_tc_apply import FLOWS\n"
        "apply('eth9', FLOWS, 'a killed run', 600); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script], env=environment(), check=False)
    assert eventually(lambda: tc.qdiscs == DEFAULT and not leases())


@pytest.mark.parametrize("survived", range(5), ids=lambda n: f"killed after {n} commands")
def test_a_driver_killed_at_any_point_leaves_nothing(tc: FakeTc, survived: int) -> None:
    script = (
        "import os, signal; from netem import tc_apply; from tests.netem.test_tc_apply import FLOWS\n"
        f"run = tc_apply.execute; left = [None] * {survived}\n"
        "tc_apply.execute = lambda c: (left.pop(), run(c)) if left else os.kill(os.getpid(), signal.SIGKILL)\n"
        "tc_apply.apply('eth9', FLOWS, 'a killed run', 600)"
    )
    subprocess.run([sys.executable, "-c", script], env=environment(), check=False)
    assert eventually(lambda: tc.qdiscs == DEFAULT and not leases())


@pytest.mark.parametrize("survived", range(5), ids=lambda n: f"killed after {n} commands")
def test_after_driver_and_janitor_are_killed_clean_removes_the_rules(tc: FakeTc, state: Path, survived: int) -> None:
    script = (
        "import os, signal; from netem import tc_apply; from tests.netem.test_tc_apply import FLOWS, janitors\n"
        "def die():\n"
        f"    for one in janitors({str(state)!r}): one.kill(); one.wait()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"run = tc_apply.execute; left = [None] * {survived}\n"
        "tc_apply.execute = lambda c: (left.pop(), run(c)) if left else die()\n"
        "tc_apply.apply('eth9', FLOWS, 'a killed run', 600)"
    )
    subprocess.run([sys.executable, "-c", script], env=environment(), check=False)
    assert not janitors(str(state))
    assert len(leases()) == 1
    janitor.clean()
    assert tc.qdiscs == DEFAULT
    assert leases() == ()


def test_clean_removes_only_expired_leases_and_lists_them(tc: FakeTc) -> None:
    mine = Lease.take("mine", "eth9", 0x2000, 60)
    over = Lease.take("over", "eth9", 0x3000, -1)
    tc.qdiscs = [{"kind": "htb", "handle": "3000:", "root": True}]
    done = janitor.clean()
    assert any("removed eth9: rules of run over" in line for line in done)
    assert any("left eth9: rules of run mine" in line and "still in use" in line for line in done)
    assert tc.qdiscs == DEFAULT
    assert leases() == (mine,)
    assert not over.path.exists()
    assert [line for line in janitor.clean() if line.startswith("removed")] == []


def test_clean_leaves_a_root_that_took_the_place_of_ours(tc: FakeTc) -> None:
    Lease.take("over", "eth9", 0x3000, -1)
    tc.qdiscs = theirs = [{"kind": "htb", "handle": "1:", "root": True}]
    assert "forgot" in janitor.clean()[0]
    assert tc.qdiscs == theirs


def test_clean_keeps_the_lease_when_tc_cannot_be_read(tc: FakeTc) -> None:
    lease = Lease.take("over", "eth9", 0x3000, -1)
    (tc.folder / "garbage").touch()
    assert "not JSON" in janitor.clean()[0]
    assert lease.path.exists()
    (tc.folder / "garbage").unlink()


def test_the_lease_of_a_removed_device_is_dropped(tc: FakeTc) -> None:
    Lease.take("over", "eth8", 0x3000, -1)
    assert "forgot" in janitor.clean()[0]
    with pytest.raises(ShapingError, match="device eth8 does not exist"):
        apply("eth8", FLOWS, "a run", 60)


def test_a_lease_ends_with_its_owner_even_if_the_number_is_taken_again(state: Path) -> None:
    lease = Lease.take("a run", "eth9", 0x3000, 60)
    assert not lease.ended
    values = {**lease.__dict__, "owner": a_dead_process()}
    assert Lease(**values).ended
    assert Lease(**{**lease.__dict__, "owner_started": lease.owner_started + 1}).ended
    assert Lease(**{**lease.__dict__, "expires": time.time() - 1}).ended
    assert started(a_dead_process()) is None


def test_the_lease_of_a_removed_network_namespace_is_removed(state: Path) -> None:
    lease = Lease.take("a run", "eth9", 0x3000, 60)
    moved = Lease(**{**lease.__dict__, "network": 1})
    moved.path.write_text(json.dumps(moved.__dict__))
    assert "gone with their network namespace" in janitor.clean()[0]
    assert leases() == ()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"id": "x"}', "\x00"])
def test_a_file_that_is_not_a_lease_is_left_alone(state: Path, content: str) -> None:
    Lease.take("a run", "eth9", 0x3000, 60).drop()
    stray = state / "leases" / "stray.json"
    stray.write_text(content)
    assert leases() == ()
    assert stray.exists()


def test_a_missing_tc_is_named_with_its_package(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ShapingError, match=r"`tc` is not installed.*iproute2"):
        apply("eth9", FLOWS, "a run", 60)
    assert leases() == ()
