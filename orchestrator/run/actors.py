"""One party as a Ray actor: a process of its own that wraps one `Party` and answers while the party works.

Through Ray go paths, public values and counters. Shares, weights and prompts travel over the parties' own links; the
one text that may come back is the client's own, when the job asks for it.
"""

import errno
import faulthandler
import os
import pkgutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from parties.errors import OutOfRange, PartyError
from parties.metering.cgroup import oom_kills, usable_cpus
from parties.roles.reports import PartyProgress, PartyResult
from parties.transport.tls import Identity

PARTY_CLASS = "parties.roles.party:Party"

# Exceptions whose text describes the program or the system. The text of the others (ValueError, KeyError, ...) often
# quotes the data at fault, and the data here is secret.
_SAFE_TO_REPORT = (OSError, RuntimeError, ImportError, AttributeError, TypeError, NotImplementedError, AssertionError)
_LONGEST_MESSAGE = 500


class PartyActor:
    """One role's process. Every method returns plain values; failures come back as `{"error": {...}}`.

    Run it with `max_concurrency` of at least 3, so that `progress` and `stacks` answer while `run` blocks.

    Args:
        role: `client`, `server`, `dealer` or `referee`.
        parties_here: Number of parties that share this machine's cores.
        party_class: Import path `module:Class` of the party, with the interface of
            `parties.roles.party.Party`.
        beside_peer: Whether client and server run on one machine.
    """

    def __init__(
        self, role: str, parties_here: int, party_class: str = PARTY_CLASS, *, beside_peer: bool = False
    ) -> None:
        self._role = role
        self._party: Any = None
        self._identity = Identity()
        self._party_class = party_class
        self._threads = threads_for(parties_here)
        self._cpus = own_cpus(role, sorted(os.sched_getaffinity(0))) if beside_peer else ()

    def hello(self) -> dict[str, Any]:
        """Report that the process is up.

        Returns:
            Its `pid`, its `niceness`, and the kernel's count `oom_kills` (`parties.metering.cgroup`).
        """
        kills, nice = oom_kills(), os.getpriority(os.PRIO_PROCESS, 0)
        return {"pid": os.getpid(), "niceness": nice, "oom_kills": None if kills is None else asdict(kills)}

    def open(self, host: str, port: int, session: str, timeout_s: float) -> dict[str, Any]:
        """Bind the party's data port and its exporter.

        Returns:
            `address` and `metrics_address`, each host and port; or `error`.
        """

        def work() -> dict[str, Any]:
            party_class = pkgutil.resolve_name(self._party_class)
            self._limit_threads()
            self._party = party_class(self._role, host, session, port=port, timeout_s=timeout_s)
            return {
                "address": tuple(self._party.address),
                "metrics_address": tuple(self._party.metrics_address),
            }

        return self._reply(work)

    def request_certificate(self) -> dict[str, Any]:
        """The request for a certificate, `request`. The key stays in this process."""
        return self._reply(lambda: {"request": self._identity.request()})

    def take_certificate(self, certificate: bytes, authority: bytes) -> dict[str, Any]:
        """Take the signed certificate, and the authority's own to verify peers; `{}`, or `error`."""

        def work() -> dict[str, Any]:
            self._identity.certify(certificate, authority)
            return {}

        return self._reply(work)

    def connect(self, addresses: dict[str, tuple[str, int]]) -> dict[str, Any]:
        """Connect the data links to every other role, for the first time or anew, under TLS if there is a certificate.

        Returns:
            `{}`, or `error`.
        """

        def work() -> dict[str, Any]:
            self._party.connect(addresses, *([self._identity] if self._identity.certified else []))
            return {}

        return self._reply(work)

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """Run one cell; the fields of its `PartyResult`, or `error`."""

        def work() -> dict[str, Any]:
            self._limit_threads()
            if self._cpus:
                os.sched_setaffinity(0, self._cpus)  # of this thread and those that it starts
            result: PartyResult = self._party.run(job)
            return result.to_json()

        return self._reply(work)

    def progress(self) -> dict[str, Any]:
        """The fields of the party's `PartyProgress` now; empty before `open`."""
        return {} if self._party is None else self._progress().to_json()

    def _progress(self) -> PartyProgress:
        progress: PartyProgress = self._party.progress()
        return progress

    def stacks(self) -> str:
        """The stacks of all threads of this process: files, lines and function names, no values."""
        with tempfile.TemporaryFile("w+") as file:
            faulthandler.dump_traceback(file, all_threads=True)
            file.seek(0)
            return file.read()

    def close(self) -> dict[str, Any]:
        """Close links, data port and exporter; `{}` when done, or `error`."""

        def work() -> dict[str, Any]:
            if self._party is not None:
                self._party.close()
            return {}

        return self._reply(work)

    def _limit_threads(self) -> None:
        """Gives torch this party's share of the processors. OpenMP keeps it per thread, and Ray runs us on any."""
        if (torch := sys.modules.get("torch")) is not None:  # imported by the party's class, if at all
            torch.set_num_threads(self._threads)

    def _reply(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - the edge of the process: whatever went wrong goes into the record
            return {"error": describe(error, self._role, self._last_progress())}

    def _last_progress(self) -> PartyProgress | None:
        try:
            return None if self._party is None else self._progress()
        except Exception:  # noqa: BLE001 - a broken party must not hide the error that broke it
            return None


def threads_for(parties_here: int) -> int:
    """Torch threads of one of `parties_here` parties on this machine: an equal share of its CPUs, at least one."""
    return max(1, int(usable_cpus() / max(1, parties_here)))


def own_cpus(role: str, cpus: Sequence[int]) -> Sequence[int]:
    """The CPUs of a computing party beside its peer: one half is the client's, the other the server's.

    Linux likes to run a process that a message wakes on the CPU of the sender, where two parties that compute between
    messages would take turns.

    Args:
        role: The party.
        cpus: The machine's CPUs.

    Returns:
        Empty for other parties, which keep to none, and on a single CPU.
    """
    half = len(cpus) // 2
    return {"client": cpus[:half], "server": cpus[half:]}.get(role, ()) if half else ()


def describe(error: Exception, role: str, progress: PartyProgress | None) -> dict[str, Any]:
    """The error dictionary of one party: status, message, role, stage, bytes so far, and the peer it names, if any."""
    last = progress or PartyProgress(role=role, state="")
    return {
        "status": _status(error),
        "message": str(error) if isinstance(error, PartyError) else _safe_message(error),
        "role": role,
        "stage": getattr(error, "stage", None) or last.stage,
        "sent_bytes": last.sent_bytes,
        "received_bytes": last.received_bytes,
        "peer": getattr(error, "peer", None) or next(iter(getattr(error, "missing", ())), None),
        "out_of_range": error.number if isinstance(error, OutOfRange) else None,
    }


def _status(error: Exception) -> str:
    if isinstance(error, PartyError):
        return error.status
    return "oom" if _out_of_memory(error) else "party_died"


def _out_of_memory(error: Exception) -> bool:
    """Whether the host or the GPU had no memory left; for the host, torch raises a plain RuntimeError."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # torch's
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))
    )


def _safe_message(error: Exception) -> str:
    """Type and place of an unexpected error, with its text only where that cannot quote secret data."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    text = f": {error}"[:_LONGEST_MESSAGE] if isinstance(error, _SAFE_TO_REPORT) else ""
    advice = "; out of memory: use a smaller model or seq_len, or a larger machine" if _out_of_memory(error) else ""
    return f"{type(error).__name__}{place}{text}{advice}"
