"""Fault injection: a signal to a process of the run, or half a record as after a crash in the middle of a write."""

import contextlib
import json
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from orchestrator.records.record import Status

_FAILED = {Status.PARTY_DIED, Status.TIMEOUT}
_LINKS = _FAILED | {Status.SHAPING_FAILED, Status.SHAPING_DRIFTED}
_ANY = _LINKS | {Status.UNSUPPORTED, Status.INTERRUPTED, Status.OOM}


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: Name in the log.
        word: Part of the command line of the target process; empty for the driver itself.
        number: The signal to send.
        statuses: Allowed statuses of the affected cell, besides `ok` and no record.
        weight: Relative frequency.
        ends: Whether the driver may fail; otherwise it must complete.
        corrupts_records: Whether half a record is also appended to the file of records.
    """

    name: str
    word: str
    number: signal.Signals
    statuses: set[Status]
    weight: int
    ends: bool = False
    corrupts_records: bool = False


PARTY = "ray::PartyActor"
_COMMON = (
    Fault("party killed", PARTY, signal.SIGKILL, {Status.PARTY_DIED}, 4),
    Fault("party stopped", PARTY, signal.SIGSTOP, _FAILED, 2),
    Fault("driver killed", "", signal.SIGKILL, set(), 2, ends=True),
    Fault("driver killed in a write", "", signal.SIGKILL, set(), 2, ends=True, corrupts_records=True),
    Fault("driver interrupted", "", signal.SIGINT, {Status.INTERRUPTED}, 1, ends=True),
    Fault("Ray node killed", "/raylet/raylet", signal.SIGKILL, _ANY, 1, ends=True),
    Fault("Ray head killed", "/gcs/gcs_server", signal.SIGKILL, _ANY, 1, ends=True),
)
_IN_LAB = (
    Fault("relay killed", "netem.relay_process", signal.SIGKILL, _LINKS, 3),
    Fault("lab's supervisor killed", "netem.lab.supervisor", signal.SIGKILL, _ANY, 2, ends=True),
)


def faults(*, lab: bool) -> tuple[Fault, ...]:
    """All faults for a run."""
    return (*_COMMON, *(_IN_LAB if lab else ()))


@dataclass(frozen=True)
class InjectedFault:
    """A fault that was injected.

    Attributes:
        fault: The fault.
        time: Time of the injection.
        pid: Process id of the target.
        role: Role of the target if it is a party and known, else empty.
    """

    fault: Fault
    time: datetime
    pid: int
    role: str = ""


def inject(
    fault: Fault,
    family: Sequence[psutil.Process],
    out: Path,
    choose: Callable[[Sequence[psutil.Process]], psutil.Process],
) -> InjectedFault | None:
    """Injects a fault now.

    Args:
        fault: The fault.
        family: The driver first, then all its descendants; no other process is ever a target.
        out: Folder of the run.
        choose: Chooses the target among several processes.

    Returns:
        The injected fault; None if no such process is running.
    """
    targets = [process for process in family[1:] if fault.word in command_line(process)] if fault.word else family[:1]
    if not targets:
        return None
    target = choose(sorted(targets, key=lambda process: process.pid))
    role = role_of(target, out) if fault.word == PARTY else ""
    try:
        target.send_signal(fault.number)
    except psutil.NoSuchProcess:
        return None
    return InjectedFault(fault, datetime.now(UTC), target.pid, role)


def append_half_record(records: Path) -> None:
    """Appends half a record to the file, as a crash in the middle of a write would."""
    if records.exists() and (lines := records.read_bytes().splitlines()):
        with records.open("ab") as file:
            file.write(lines[-1][: len(lines[-1]) // 2])


def role_of(party: psutil.Process, out: Path) -> str:
    """The role of a party's process, by the port of its exporter; empty if unknown."""
    with contextlib.suppress(OSError, ValueError, psutil.Error, KeyError):
        here = {connection.laddr.port for connection in party.net_connections("inet") if connection.status == "LISTEN"}
        for group in json.loads((out / "targets.json").read_text()):
            if int(group["targets"][0].rpartition(":")[2]) in here:
                return str(group["labels"]["party"])
    return ""


def command_line(process: psutil.Process) -> str:
    """The command line of a process; empty if it has exited."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
