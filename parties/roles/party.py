"""One party in its process: its links, its exporter, and the cells that it runs."""

import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Protocol

import torch

from parties.address import Address
from parties.decoding.prefill import protocol
from parties.errors import PartyError
from parties.metering.exporter import Exporter
from parties.metering.interfaces import INTERFACES
from parties.metering.meter import StageMeter
from parties.metering.process import keep_what_is_loaded, peak_resident_bytes, process_readings, release_memory
from parties.metering.progress import Progress
from parties.metering.readings import Counts, StageReading
from parties.roles.client_and_server import ComputingParty
from parties.roles.dealer import DealingParty
from parties.roles.job import Job
from parties.roles.referee import Referee
from parties.roles.reports import PartyProgress, PartyResult, RoleResult
from parties.transport.mesh import Listener, Mesh, connect
from parties.transport.tls import Identity


class Role(Protocol):
    """The part of one role in a cell."""

    def run(self, job: Job) -> RoleResult:
        """Runs one cell; returns the role's own part of the result."""


class Party:
    """One role of a run, in a process of its own.

    Args:
        role: `client`, `server`, `dealer` or `referee`.
        host: The data address; links and the exporter are bound to it.
        session: A random string that all parties of a run share.
        port: Data port; 0 takes a free one.
        metrics_port: Port of the exporter; 0 takes a free one.
        timeout_s: Seconds without a byte after which a peer counts as hanging.

    Raises:
        AddressInUse: A port is taken.
    """

    def __init__(
        self, role: str, host: str, session: str, port: int = 0, metrics_port: int = 0, timeout_s: float = 60.0
    ) -> None:
        self.role, self.session, self.timeout_s = role, session, timeout_s
        self._started = time.perf_counter()
        self.meter = StageMeter()
        self._listener = Listener(host, port)
        self._address = self._listener.address
        self._exporter = Exporter(role, self.meter, host, metrics_port)
        self.state = Progress(self.meter)
        self._exporter.observe(self.state)
        self._mesh: Mesh | None = None
        self._worker: Role | None = None
        keep_what_is_loaded()

    @property
    def address(self) -> Address:
        """Where peers dial: (host, port)."""
        return self._address

    @property
    def metrics_address(self) -> Address:
        """Where Prometheus scrapes: (host, port)."""
        return self._exporter.address

    def connect(self, addresses: Mapping[str, Address], identity: Identity | None = None) -> None:
        """Links to every other role, under TLS if this party has an identity.

        Called again, it gives the links new connections; the party keeps the identity and what its role has loaded.

        Raises:
            PartyError: A role did not come, or a stranger did.
        """
        if self._mesh is not None:
            self._mesh.renew(dict(addresses))
            return
        self._mesh = connect(
            self.role, self._listener, dict(addresses), self.session, self.meter, self.timeout_s, identity
        )
        if self.role == "dealer":
            self._worker = DealingParty(self._mesh, self.meter, self.state)
        elif self.role == "referee":
            self._worker = Referee(self._mesh, self.meter, self.state)
        else:
            self._worker = ComputingParty(self.role, self._mesh, self.meter, self.state)

    def run(self, job: Mapping[str, Any]) -> PartyResult:
        """Runs one cell, after `connect`.

        Args:
            job: Fields of a `Job`.

        Raises:
            PartyError: The error that stopped the cell, with its status.
        """
        wanted = Job.model_validate(job)
        if self._worker is None:
            raise PartyError("run was called before connect")
        self.meter.reset()
        before = INTERFACES.read()
        idle = wanted.engine == "plain" and self.role != "referee"
        result = RoleResult() if idle else self._worker.run(wanted)
        after = INTERFACES.read()
        stages = result.stages or self.meter.snapshot()
        if result.prefill is not None:
            stages = _without(stages, result.prefill.stages)
        self.state.enter("idle")
        release_memory()
        return PartyResult(
            **{**dict(result), "stages": stages},
            role=self.role,
            host=self.address[0],
            peak_rss_bytes=int(peak_resident_bytes()),
            gpu_peak_bytes=gpu_peak_bytes(),
            interface_sent_bytes=after[0] - before[0],
            interface_received_bytes=after[1] - before[1],
            versions=versions(),
        )

    def progress(self) -> PartyProgress:
        """Progress of this party; cheap, callable from any thread."""
        readings = self.meter.snapshot()
        counted = protocol(readings)
        totals = sum((Counts() + reading for reading in counted), start=Counts())
        process = dict(process_readings())
        gpu = process.get("mpcbench_gpu_allocated_bytes")
        return PartyProgress(
            role=self.role,
            state=self.state.name,
            stage=self.meter.current,
            tokens=self.state.tokens,
            sent_bytes=totals.sent_bytes,
            received_bytes=totals.received_bytes,
            rounds=totals.rounds,
            blocked_seconds=totals.blocked_seconds,
            compute_seconds=sum(reading.compute_seconds for reading in counted),
            cpu_seconds=process["mpcbench_cpu_seconds_total"],
            rss_bytes=int(process["mpcbench_resident_bytes"]),
            memory_limit_bytes=int(process["mpcbench_memory_limit_bytes"]),
            memory_available_bytes=int(process["mpcbench_memory_available_bytes"]),
            gpu_bytes=None if gpu is None else int(gpu),
            loaded=self.meter.numbers().get("mpcbench_loaded_ratio"),
            uptime_seconds=time.perf_counter() - self._started,
            stages={r.stage: (r.seconds, r.rounds, r.sent_bytes + r.received_bytes) for r in readings},
            peers=_sent(readings),
            times=self.state.times,
        )

    def close(self) -> None:
        """Frees links, ports, the exporter, and what the role keeps from cell to cell."""
        self.state.enter("closed")
        self._worker = None
        if self._mesh is not None:
            self._mesh.close()
        self._listener.close()
        self._exporter.close()


def gpu_peak_bytes() -> int | None:
    """Most GPU memory that this process's tensors ever held; None if it has used no GPU."""
    used: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.cuda.max_memory_allocated() if used else None


def versions() -> dict[str, str]:
    """Versions of what a number depends on."""
    packages = {name: version(name) for name in ("torch", "crypten", "transformers", "numpy")}
    return {"python": platform.python_version(), "kernel": platform.release(), **packages}


def _sent(readings: Sequence[StageReading]) -> dict[str, int]:
    """Bytes sent to each peer, in all phases."""
    sent: dict[str, int] = {}
    for reading in readings:
        for peer, counts in reading.peers.items():
            sent[peer] = sent.get(peer, 0) + counts.sent_bytes
    return sent


def _without(stages: Sequence[StageReading], part: Sequence[StageReading]) -> tuple[StageReading, ...]:
    """Stages without a part of them; those of which nothing is left are taken out."""
    spent = {stage.stage: stage for stage in part}
    rest = [stage for stage in stages if stage != spent.get(stage.stage)]
    return tuple(stage.since(spent[stage.stage]) if stage.stage in spent else stage for stage in rest)
