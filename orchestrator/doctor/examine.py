"""All checks, one after the other, on the cluster that this process is connected to."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.doctor.capacity import disk, memory, records
from orchestrator.doctor.clocks import clock, exchanges, offset
from orchestrator.doctor.finding import Finding, fine, wrong
from orchestrator.doctor.gpus import cards, gpus
from orchestrator.doctor.host import installed_versions
from orchestrator.doctor.hosts import Host, Unanswered, doctors
from orchestrator.doctor.reach import endpoints_of, reach
from orchestrator.doctor.shaping import shaping
from orchestrator.doctor.software import software
from orchestrator.experiment.cells import Cell, expand
from orchestrator.experiment.experiment import Experiment
from orchestrator.experiment.gpu_roles import gpu_roles, gpu_wishes
from orchestrator.records.record import Record
from orchestrator.run.failures import CellFailure
from orchestrator.run.placement import Placement, PlacementError, place
from orchestrator.run.runner import require_model

_SLOTS_S = 15.0


def examine(experiment: Experiment | None, folder: Path, past: Sequence[Record] = ()) -> Iterator[Finding]:
    """Check every host, each finding as soon as there is one.

    Args:
        experiment: The experiment to run; None checks the hosts alone.
        folder: The folder for the records.
        past: Records of what cells took.
    """
    cells = () if experiment is None else expand(experiment)
    if experiment is not None:
        yield records(folder, experiment)
    with doctors() as everyone:
        versions: dict[str, Any] = {}
        hosts: list[Host] = []
        for host in everyone:
            try:
                versions[host.name] = host.ask("versions")
                hosts.append(host)
            except Unanswered as error:
                fix = (
                    "install mpcache-bench there as on this machine, start Ray from that environment; see `ray status`"
                )
                yield wrong("versions", host.name, str(error), fix)
        yield from software(installed_versions(), versions)
        yield from _clocks(hosts)
        if experiment is None or any(cell.gpu for cell in cells):
            yield from cards(hosts)
        roles = tuple(dict.fromkeys(role for cell in cells for role in gpu_roles(cell)))
        wished = tuple(dict.fromkeys(role for cell in cells for role in gpu_wishes(cell) if role not in roles))
        with _slots(roles, wished) as (placement, finding):
            yield finding
            ports = {role: port for cell in cells for role, port in cell.data_ports.items()}
            yield from reach(hosts, endpoints_of(hosts, placement, ports))
            if placement is not None:
                yield from shaping(cells, placement)
                yield from _memory(hosts, placement, cells, past)
                yield from gpus(roles, placement, cells)
        yield disk(folder, len(cells), past)


def _clocks(hosts: Sequence[Host]) -> Iterator[Finding]:
    for host in hosts:
        try:
            yield clock(host.name, offset(exchanges(lambda host=host: float(host.ask("now")))))  # type: ignore[misc]
        except Unanswered as error:
            yield wrong("clock", host.name, str(error), "see `ray status`")


@contextmanager
def _slots(gpu: Sequence[str], wished: Sequence[str]) -> Iterator[tuple[Placement | None, Finding]]:
    """The parties' slots for as long as the block lasts, and their row."""
    try:
        placement = place(gpu=gpu, wished=wished, timeout_s=_SLOTS_S)
    except PlacementError as error:
        yield (
            None,
            wrong("slots", "cluster", str(error), "see the end of the message; `ray status` lists what is in use"),
        )
        return
    try:
        slots = ", ".join(f"{role} on {host}" for role, host in placement.hosts.items())
        yield placement, fine("slots", "cluster", slots)
    finally:
        placement.release()


def _memory(
    hosts: Sequence[Host], placement: Placement, cells: Sequence[Cell], past: Sequence[Record]
) -> Iterator[Finding]:
    try:
        for model in dict.fromkeys(cell.model for cell in cells):
            require_model(model)
    except CellFailure as error:
        yield wrong("model", "this machine", error.message, "correct model in the file")
        return
    yield from memory(hosts, placement, cells, list(past))
