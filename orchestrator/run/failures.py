"""Why a cell failed: one failure, of the party that caused it and not of the ones that noticed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ray.exceptions

from parties.metering.stages import IDLE
from parties.roles.reports import PartyProgress

Progress = Mapping[str, PartyProgress | None]
"""The last progress of each role; None before its first."""


@dataclass(eq=False)
class CellFailure(Exception):  # noqa: N818 - a cell fails; the errors are its parties'
    """The cause of a cell's early end.

    Attributes:
        status: One of the record's statuses.
        message: The event and the fix.
        role: The party at fault, or empty when it was none of them.
        stage: The last stage that the party reported.
        sent_bytes: Bytes it had sent by then, all links together.
        received_bytes: Bytes it had received by then.
        peer: The party that this one blames; a failure with a peer is a symptom.
        out_of_range: With the status of that name, the number: fields of the record's `RangeReading`.
    """

    status: str
    message: str
    role: str = ""
    stage: str = ""
    sent_bytes: int = 0
    received_bytes: int = 0
    peer: str | None = None
    out_of_range: Mapping[str, Any] | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the record's error."""
        return {name: value for name, value in asdict(self).items() if name != "peer"}

    def __str__(self) -> str:
        return f"{self.status}: {self.message}"


def reported(error: Mapping[str, Any], progress: PartyProgress | None) -> CellFailure:
    """The failure that a party reported of itself, from its error dictionary.

    The party may have left the stage by the time of its report; then it is the last stage seen.
    """
    stage = error["stage"] if error["stage"] not in ("", IDLE) else _last_stage(progress)
    return CellFailure(**{**error, "stage": stage})


def lost(role: str, error: Exception, progress: PartyProgress | None, oom: str = "") -> CellFailure:
    """The failure of a party whose actor did not answer any more.

    Args:
        role: The party.
        error: Ray's error.
        progress: The party's last progress.
        oom: The kernel's count of processes killed for want of memory since the party started, in words, if there are.
    """
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        status, what = "oom", "was killed by Ray because its machine ran out of memory; use a smaller model or seq_len"
    elif isinstance(error, ray.exceptions.RayActorError) and oom:
        status, what = "oom", f"is gone, and {oom}; use a smaller model or seq_len, or raise the limit"
    elif isinstance(error, ray.exceptions.RayActorError) and error.actor_init_failed:
        status = "config_error"
        what = f"could not start: {_last_line(error)}; install this same version of mpcache-bench on every node"
    elif isinstance(error, ray.exceptions.RayActorError):
        status, what = "party_died", f"is gone: {_reason(error)}"
    else:
        status, what = "party_died", f"could not be asked: {type(error).__name__}"
    return failure_of(role, progress, status=status, message=f"{role} {what}")


def root_cause(failures: Sequence[CellFailure], progress: Progress) -> CellFailure:
    """The failure to record, of all that came in.

    A party that failed by itself comes first. If every report blames a peer, the silent peer is at fault: it hangs, or
    its machine is out of reach.

    Args:
        failures: At least one, in order of arrival.
        progress: Last progress of each role.
    """
    for failure in failures:
        if failure.peer is None:
            return failure
    speakers = {failure.role for failure in failures}
    for failure in failures:
        if failure.peer is not None and failure.peer not in speakers:
            message = f"{failure.role} reports: {failure.message}"
            return failure_of(failure.peer, progress.get(failure.peer), status=failure.status, message=message)
    return failures[0]


def failure_of(role: str, progress: PartyProgress | None, *, status: str, message: str) -> CellFailure:
    """A failure of a party, with stage and bytes of its last progress; of nobody if `role` is empty."""
    return CellFailure(
        status=status,
        message=message,
        role=role,
        stage=_last_stage(progress),
        sent_bytes=0 if progress is None else progress.sent_bytes,
        received_bytes=0 if progress is None else progress.received_bytes,
    )


def _last_stage(progress: PartyProgress | None) -> str:
    return "" if progress is None else progress.stage


def _reason(error: Exception) -> str:
    """Ray's own words on the end of an actor's process, without its ids and general advice."""
    words = _last_line(error).split("Some common causes")[0].strip()
    return f"{words} Look for the kernel's OOM killer in dmesg, and at the node in `ray status`."


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
