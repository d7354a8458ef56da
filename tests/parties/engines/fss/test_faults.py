"""Parties that die or stop and corrupted bytes, in each part of a cell, are detected and named."""

import os
import pickle
import signal
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import wait
from typing import Any

import pytest

from parties.engines.fss import engine as fss_party
from parties.engines.fss.arithmetic.opening import Opener
from parties.engines.fss.dealing import dry_run
from parties.engines.fss.dealing.dealer import Dealer
from parties.engines.fss.dealing.receiver import Receiver
from parties.errors import PartyError
from parties.metering.meter import StageMeter
from parties.transport.mesh import Mesh
from tests.helpers.four import Four, Job
from tests.helpers.together import start
from tests.helpers.waiting import PATIENCE_S
from tests.parties.engines.fss.test_decoding import POLICIES, decode, prefilled

ROLES = ("client", "server", "dealer")
TIMEOUT_S = 15.0

pytestmark = pytest.mark.slow


def fail(how: int) -> None:
    os.kill(os.getpid(), how)


def arm(role: str, when: str, how: int) -> None:
    """Makes this process fail at a point of the cell."""
    owner: type
    if when == "setup":
        owner, name, at = (Dealer, "_install", 1) if role == "dealer" else (fss_party.FssEngine, "_begin", 1)
    elif when == "offline":
        owner, name, at = (dry_run.DryRun, "begin", 1) if role == "dealer" else (Receiver, "next", 1)
    else:
        owner, name, at = (dry_run.DryRun, "put", 3) if role == "dealer" else (Opener, "__call__", 40)
    honest, calls = getattr(owner, name), 0

    def failing(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            fail(how)
        return honest(*arguments, **named)

    setattr(owner, name, failing)


def part(role: str, mesh: Mesh, meter: StageMeter, failed: str, when: str, how: int, parts: Any, token: int) -> Any:
    if role == failed:
        arm(role, when, how)
    try:
        decode(role, mesh, meter, "llama", POLICIES["full"], parts.get(role, {}), token)
    except PartyError as error:
        return type(error).__name__, error.status, str(error)
    return "", "", "went on"


KILLED = [(role, when) for role in ROLES for when in ("setup", "offline", "decode")]
STOPPED = [("client", "setup"), ("server", "decode"), ("dealer", "offline"), ("client", "decode")]


@pytest.mark.parametrize(("failed", "when"), KILLED)
def test_a_party_that_dies_is_detected_and_named(failed: str, when: str) -> None:
    is_detected(failed, when, signal.SIGKILL)


def test_parties_that_stop_are_detected_and_named() -> None:
    """Cells of their own, all at once, since each waits for its timeout."""
    with ThreadPoolExecutor(len(STOPPED)) as pool:
        for detected in [pool.submit(is_detected, failed, when, signal.SIGSTOP) for failed, when in STOPPED]:
            detected.result()


def is_detected(failed: str, when: str, how: int) -> None:
    _, _, parts, token = prefilled("llama", POLICIES["full"])
    with start(part, failed, when, int(how), parts, token, roles=ROLES, timeout_s=TIMEOUT_S) as (pipes, processes):
        reports = {role: pickle.loads(pipe.recv_bytes()) for role, pipe in pipes.items() if role != failed}  # noqa: S301
        processes[failed].kill()
    assert all(ok for ok, _ in reports.values()), reports
    outcomes = {role: outcome for role, (_, outcome) in reports.items()}
    noticed = "PeerLost" if how == signal.SIGKILL else "PeerTimeout"
    named = [outcome for outcome in outcomes.values() if outcome[0] == noticed and failed in outcome[2]]
    assert named, outcomes
    for _, status, text in named:
        assert status == ("party_died" if how == signal.SIGKILL else "timeout")
        assert "in stage" in text


def job(engine: str) -> Job:
    return {
        "engine": engine, "model": "random:tiny-llama", "policy": {"name": "full"},
        "prompt": {"random_tokens": True}, "seq_len": 20, "new_tokens": 1,
    }  # fmt: skip


@pytest.mark.parametrize("engine", ["crypten", "fss"])
@pytest.mark.parametrize("pair", [("server", "client"), ("dealer", "client"), ("dealer", "server")])
def test_a_byte_that_flips_on_its_way_ends_the_cell_by_name(engine: str, pair: tuple[str, str]) -> None:
    with Four(record=True, timeout_s=15.0) as four:
        four.run(job("plain"))  # after that, all parties have exchanged hellos
        four.wires[pair].flip_after(30)
        for role in four.processes:
            four.send(role, job(engine))
        reports: dict[str, Any] = {}
        while not any(result.get("error") == "CorruptFrame" for result in reports.values()) and len(reports) < 2:
            (pipe, *_) = wait([four.pipes[role] for role in pair if role not in reports], timeout=PATIENCE_S)
            role = next(role for role in pair if four.pipes[role] is pipe)
            reports[role] = four.receive(role)[0]
        for process in four.processes.values():
            process.kill()  # the others wait in vain, until the driver ends them
    damaged = {role: result for role, result in reports.items() if result.get("error") == "CorruptFrame"}
    assert damaged, reports
    for role, result in damaged.items():
        other = pair[1 - pair.index(role)]
        assert f"from {other} was damaged in transit in stage" in result["text"]
        assert "bytes sent and" in result["text"]
        assert "frame " in result["text"]
