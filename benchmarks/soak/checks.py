"""Invariants after every call, and on the machine at the end."""

import contextlib
import json
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

from benchmarks.soak.driver import Traces, network_of
from benchmarks.soak.faults import InjectedFault
from orchestrator.records.record import Record, Status

# A shared machine may miss the tolerance of a link without an injected fault; the record reports it.
_WEATHER = {Status.SHAPING_FAILED, Status.SHAPING_DRIFTED}
_LINGER_S = 240.0  # Ray's agents look for a head that was killed for a minute or two


def whole_lines(records: Path) -> list[bytes]:
    """The complete lines of the file of records, without a corrupt last line."""
    text = records.read_bytes() if records.exists() else b""
    return text.split(b"\n")[:-1]


def lost(before: Sequence[bytes], after: Sequence[bytes]) -> list[str]:
    """Records that are missing or changed since `before`; they must stay the same bytes in the same order."""
    return [
        f"record {number} was lost or changed"
        for number, line in enumerate(before)
        if number >= len(after) or after[number] != line
    ]


def unfinished(lines: Sequence[bytes], cells: Path) -> list[str]:
    """Cells that are not `ok` although the command reported a complete sweep."""
    latest = {record.id: record.status for record in map(Record.model_validate_json, lines)}
    asked = [cell["id"] for cell in json.loads(cells.read_text())]
    return [f"cell {name} is missing from a complete sweep" for name in asked if latest.get(name) is not Status.OK]


def implausible(records: Sequence[Record], injected: InjectedFault | None) -> list[str]:
    """The new records of a call that the injected fault does not explain, as texts."""
    failed = [record for record in records if record.status is not Status.OK and record.status not in _WEATHER]
    if injected is None:
        return [f"{_called(record)}, but no fault was injected" for record in failed]
    wrong = []
    for record in failed:
        if record.status not in injected.fault.statuses:
            wrong.append(f"{injected.fault.name}: {_called(record)}")
        elif record.finished < injected.time:
            wrong.append(f"{injected.fault.name} at {injected.time}: {_called(record)} before it")
        elif record.error is None or not record.error.message:
            wrong.append(f"{injected.fault.name}: {_called(record)} without a cause")
        elif injected.role and record.error.role != injected.role:
            wrong.append(f"{injected.fault.name}: the fault was injected into {injected.role}, and {_called(record)}")
    if len(failed) > 1 and not injected.fault.ends:
        wrong.append(f"{injected.fault.name}: one fault failed {len(failed)} cells")
    return wrong


def _called(record: Record) -> str:
    error = f" of {record.error.role or 'no party'}: {record.error.message}" if record.error else ""
    return f"cell {record.id} is {record.status}{error}"


def machine() -> set[str]:
    """Interfaces, named network namespaces, addresses and queues of this machine."""
    commands = (["ip", "-o", "link"], ["ip", "netns"], ["ip", "-o", "addr"], ["tc", "qdisc"])
    lines: set[str] = set()
    for command in commands:
        with contextlib.suppress(FileNotFoundError):
            lines |= set(subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines())
    return lines | {str(path) for path in Path("/dev/shm").glob("*")}  # noqa: S108 - where shared memory is


def leftovers(traces: Traces, before: set[str], state: Path, scratch: Path) -> list[str]:
    """Everything that the runs left on this machine after `mpcache-bench clean`.

    Args:
        traces: Processes, network namespaces and folders of the runs.
        before: `machine()` before the first run.
        state: Folder of their leases and labs.
        scratch: Their TMPDIR.
    """
    left = [f"process {process.pid}" for process in _lingering(traces.processes)]
    left += [f"network namespace {found}" for found in sorted(traces.networks & _networks())]
    left += [f"folder {folder}" for folder in sorted(traces.folders) if folder.exists()]
    left += [f"of the machine: {line}" for line in sorted(machine() - before)]
    for folder in (state, scratch):
        left += [f"file {path}" for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".lock"]
    return left


def _lingering(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """The processes that still run after a while.

    Not by `psutil.wait_procs`: some kernels refuse to wait for a pid that a thread of another program has reused.
    """
    deadline, alive = time.monotonic() + _LINGER_S, list(processes)
    while (alive := [process for process in alive if process.is_running()]) and time.monotonic() < deadline:
        time.sleep(0.5)
    return alive


def _networks() -> set[str]:
    return {network_of(process) for process in psutil.process_iter()}
