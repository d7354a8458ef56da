"""Capacity: memory for the parties, a folder and disk space for the records."""

import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import ray

from orchestrator.doctor.finding import Finding, fine, note, wrong
from orchestrator.doctor.hosts import Host
from orchestrator.experiment.cells import Cell
from orchestrator.experiment.experiment import Experiment
from orchestrator.predict.memory import memory_needs, together
from orchestrator.records.record import Record
from orchestrator.records.snapshot import require_prompt, require_same
from orchestrator.records.store import RecordStore, StoreError
from orchestrator.run.placement import Placement
from orchestrator.run.preflight import FIX, usable_memory

RECORD_BYTES = 50_000  # three times what a record of a two-token cell of SmolLM2-135M takes
_SPARE_BYTES = 100_000_000  # the report, its figures, and stacks of parties that hang


def memory(hosts: Sequence[Host], placement: Placement, cells: Sequence[Cell], past: list[Record]) -> Iterator[Finding]:
    """A row for each host with a party: free memory, and what the most demanding cell needs there.

    Args:
        hosts: All hosts.
        placement: The slots reserved for the parties.
        cells: All cells; without any, only free memory is reported.
        past: Records whose peaks are what cells really took.
    """
    for host in hosts:
        roles = [role for role, node in placement.nodes.items() if node == host.node]
        try:
            usable = usable_memory(host.node)
        except ray.exceptions.RayError as error:
            yield wrong("memory", host.name, f"no answer: {type(error).__name__}", "see `ray status`")
            continue
        if not cells or not roles:
            yield note("memory", host.name, str(usable))
            continue
        needed, source = max(need(cell, roles, past, placement.on_gpu) for cell in cells)
        text = f"{usable}; {', '.join(roles)} need about {needed / 1e9:.1f} GB ({source})"
        if usable.available < needed:
            yield wrong("memory", host.name, text, FIX)
        else:
            yield fine("memory", host.name, text)


def need(cell: Cell, roles: Sequence[str], past: Iterable[Record], on_gpu: Collection[str] = ()) -> tuple[int, str]:
    """Bytes that some parties on one host need for a cell, and where the figure is from.

    The peaks of past records of the same engine, model and policy at this length or a shorter one, where they are more
    than what `run` itself demands.
    """
    needs = memory_needs(cell, on_gpu if cell.gpu else ())
    found = [(together(needs[role] for role in roles), f"computed for {cell.seq_len} tokens, not measured")]
    for record in past:
        like = record.cell
        same = (like.engine, like.model, like.policy, like.gpu) == (cell.engine, cell.model, cell.policy, cell.gpu)
        if record.status.measured and same and like.seq_len <= cell.seq_len:
            peak = sum(reading.peak_rss_bytes for role, reading in record.parties.items() if role in roles)
            found.append((peak, f"measured at {like.seq_len} tokens, record {record.id}"))
    return max(found)


def disk(folder: Path, cells: int, past: Sequence[Record]) -> Finding:
    """Room in the records' folder, which need not exist yet."""
    there = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    sizes = [len(record.model_dump_json()) for record in past] or [RECORD_BYTES]
    needed, free = cells * max(sizes) + _SPARE_BYTES, shutil.disk_usage(there).free
    text = f"{free / 1e9:.1f} GB free; {cells} records and a report need about {needed / 1e9:.1f} GB"
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return wrong("disk", str(folder), f"{there} is not a folder that can be written to", "choose another --out")
    if free < needed:
        return wrong("disk", str(folder), text, "make room there, or choose another --out")
    return fine("disk", str(folder), text)


def records(folder: Path, experiment: Experiment) -> Finding:
    """Whether a run of the experiment may go on in the folder, with the prompt that there is."""
    store = RecordStore(folder)
    try:
        require_same(store, experiment)
        require_prompt(store, experiment)
    except StoreError as error:
        return wrong("records", str(folder), str(error), "see the end of the message")
    counts = Counter(record.status.value for record in store.latest().values())
    failed = counts.total() - counts["ok"] - counts["interrupted"]
    again = f"; `--retry failed` runs {failed} of them again" if failed else ""
    ended = ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "none"
    return fine("records", str(folder), f"cells with a record: {ended}; the run can go on{again}")
