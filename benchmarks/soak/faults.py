"""Real faults: a signal to a process of the run, or a record torn as by a crash in the middle of a write."""

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
        name: As the log calls it.
        word: Part of the victim's command line; empty for the driver itself.
        number: The signal sent.
        statuses: What the cell that was struck may be recorded as, if it is not `ok` or missing.
        weight: How often it strikes, by comparison.
        ends: Whether the driver may fail of it; otherwise it must go on to its own end.
        tears: Whether half a record is left behind, too.
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
    """All that may strike a run."""
    return (*_COMMON, *(_IN_LAB if lab else ()))


@dataclass(frozen=True)
class InjectedFault:
    """A fault that struck.

    Attributes:
        fault: Which.
        time: When.
        pid: Whom.
        role: The party that was struck, if it was one and is known.
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
    """Do it now.

    Args:
        fault: What.
        family: The driver first, then all the processes below it; nobody else is ever struck.
        out: The run's folder.
        choose: Picks the victim of several.

    Returns:
        What was done; None if no such process runs at the moment.
    """
    victims = [process for process in family[1:] if fault.word in command_line(process)] if fault.word else family[:1]
    if not victims:
        return None
    victim = choose(sorted(victims, key=lambda process: process.pid))
    role = role_of(victim, out) if fault.word == PARTY else ""
    try:
        victim.send_signal(fault.number)
    except psutil.NoSuchProcess:
        return None
    return InjectedFault(fault, datetime.now(UTC), victim.pid, role)


def append_half_record(records: Path) -> None:
    """Half a record at the end, as a crash in the middle of a write leaves it."""
    if records.exists() and (lines := records.read_bytes().splitlines()):
        with records.open("ab") as file:
            file.write(lines[-1][: len(lines[-1]) // 2])


def role_of(party: psutil.Process, out: Path) -> str:
    """Which party a process is, by the port of its exporter; empty if that is not known."""
    with contextlib.suppress(OSError, ValueError, psutil.Error, KeyError):
        here = {connection.laddr.port for connection in party.net_connections("inet") if connection.status == "LISTEN"}
        for group in json.loads((out / "targets.json").read_text()):
            if int(group["targets"][0].rpartition(":")[2]) in here:
                return str(group["labels"]["party"])
    return ""


def command_line(process: psutil.Process) -> str:
    """The command line of a process; empty once it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
