"""The parties of one or more cells: four actors in their slots, connected to each other, stopped as one."""

import contextlib
import math
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import psutil
import ray
from ray.actor import ActorHandle

from netem.lab import attached
from orchestrator.experiment.networks import ResolvedNetwork
from orchestrator.run import niceness
from orchestrator.run.actors import PARTY_CLASS, PartyActor
from orchestrator.run.deadline import Deadline
from orchestrator.run.failures import CellFailure, Progress, failure_of, lost, reported, root_cause
from orchestrator.run.links import Links, links_between
from orchestrator.run.nodes import on_node
from orchestrator.run.placement import ROLES, Placement
from orchestrator.run.progress_reports import ProgressReports
from parties.metering.cgroup import OomKills, read_oom_kills
from parties.roles.reports import PartyResult
from parties.transport.tls import Authority

Address = tuple[str, int]
Answers = dict[str, Any]
Results = dict[str, PartyResult]

POLL_S = 0.33
# How long to listen for the cause once a party has reported a symptom (its peer is gone).
_GRACE_S = 3.0
_STACKS_S = 5.0
_SILENT_S = 5.0  # a party at work reports its progress three times per second
_CLOSE_S = 5.0
_OOM_S = 5.0
_EXIT_S = 10.0  # Ray ends a stopped process after 5 s


@dataclass
class PartyGroup:
    """Four connected parties.

    Attributes:
        placement: Their slots.
        network: The network between them.
        exporters: Address of each party's Prometheus exporter.
        pids: Process id of each party, on its own machine.
        remarks: Warnings for the records of its cells.
        oom_kills: The kernel's count of processes killed for lack of memory where each role started.
        links: The links between them.
        timeout_s: Longest time that a party waits for a byte of a peer, in seconds.
    """

    placement: Placement
    actors: dict[str, ActorHandle]
    timeout_s: float
    network: ResolvedNetwork
    exporters: dict[str, Address] = field(default_factory=dict, init=False)
    pids: dict[str, int] = field(default_factory=dict, init=False)
    remarks: tuple[str, ...] = field(default=(), init=False)
    oom_kills: dict[str, OomKills] = field(default_factory=dict, init=False)
    links: Links = field(init=False)
    _bound: dict[str, Address] = field(default_factory=dict, init=False)
    _reports: ProgressReports = field(init=False)
    _undo: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, init=False)

    def __post_init__(self) -> None:
        self._reports = ProgressReports(self.actors)

    @classmethod
    def start(
        cls,
        placement: Placement,
        deadline: Deadline,
        timeout_s: float,
        ports: Mapping[str, int],
        network: ResolvedNetwork,
        shaping: str,
        party_class: str = PARTY_CLASS,
    ) -> Self:
        """Start the actors in their slots and connect them.

        Args:
            placement: The slots; released again if this fails.
            deadline: Bounds the whole start.
            timeout_s: Longest time that a party waits for a byte of a peer, in seconds.
            ports: Data ports of the roles that want a fixed one.
            network: The network between them.
            shaping: The back end that shapes the links, or `auto`.
            party_class: See `PartyActor`.

        Raises:
            CellFailure: A party could not start or connect.
            Interrupted: The user has requested a stop.
            Overdue: The deadline has passed.
        """
        remote = ray.remote(PartyActor)
        beside_peer = placement.nodes["client"] == placement.nodes["server"] or attached() is not None
        actors = {
            role: remote.options(**placement.options(role), max_concurrency=4, max_restarts=0).remote(
                role, placement.parties_on_node(role), party_class, beside_peer=beside_peer
            )
            for role in ROLES
        }
        group = cls(placement, actors, timeout_s, network)
        try:
            group._open(deadline, ports)
            group._connect(deadline, shaping)
        except BaseException:
            group.kill()
            raise
        return group

    def move_to(self, network: ResolvedNetwork, shaping: str, deadline: Deadline) -> None:
        """Connect the parties anew, over another network; they keep what they have loaded.

        Args:
            network: The network; it has TLS if the former one has.
            shaping: The back end that shapes the links, or `auto`.
            deadline: Bounds the change.

        Raises:
            CellFailure, Interrupted, Overdue: As in `start`; `kill` the group.
        """
        self._undo.close()
        self.network = network
        self._connect(deadline, shaping)

    def run(self, job: dict[str, Any], deadline: Deadline, watch: Callable[[Progress], None]) -> Results:
        """Run one job on all parties at once.

        Args:
            job: `parties.roles.job.Job` as a dictionary.
            deadline: Bounds the run.
            watch: Called about three times per second with the progress of all roles.

        Returns:
            The result of each role.

        Raises:
            CellFailure: The failure of the party at fault. The others may still be running: `kill` the group.
            Interrupted: The user has requested a stop.
            Overdue: The deadline has passed.
        """

        def observe(progress: Progress) -> None:
            watch(progress)
            self._require_news()

        answers = self._all({role: actor.run.remote(job) for role, actor in self.actors.items()}, deadline, observe)
        return {role: PartyResult.model_validate(answer) for role, answer in answers.items()}

    @property
    def progress(self) -> Progress:
        """Last progress of each role."""
        return self._reports.last

    def overdue(self, message: str) -> CellFailure:
        """The failure of a cell that took too long; a party that alone no longer reports its progress is at fault."""
        silent = self._reports.silent(_SILENT_S)
        role = silent[0] if len(silent) == 1 else ""
        return failure_of(role, self._reports.seen(role) if role else None, status="timeout", message=message)

    def stacks(self) -> str:
        """Stacks of all threads of all parties, as far as they answer within a few seconds."""
        asked = {role: actor.stacks.remote() for role, actor in self.actors.items()}
        ray.wait(list(asked.values()), num_returns=len(asked), timeout=_STACKS_S)
        return "\n".join(f"== {role} ==\n{self._stack(role, ref)}" for role, ref in asked.items())

    def close(self) -> None:
        """Let the parties close their links and ports, then end them."""
        asked = [actor.close.remote() for actor in self.actors.values()]
        ray.wait(asked, num_returns=len(asked), timeout=_CLOSE_S)
        self.kill()

    def kill(self) -> None:
        """End all parties at once, and release their slots."""
        for actor in self.actors.values():
            ray.kill(actor)
        self.placement.release()
        self._await_exit()
        with contextlib.suppress(CellFailure):  # what a host does not undo now, its janitor does
            self._undo.close()

    def _await_exit(self) -> None:
        """Wait until the processes on this machine are gone, with their memory and ports."""
        here = [pid for role, pid in self.pids.items() if self._is_here(role) and psutil.pid_exists(pid)]
        psutil.wait_procs([psutil.Process(pid) for pid in here], timeout=_EXIT_S)

    def _is_here(self, role: str) -> bool:
        return bool(self.placement.nodes[role] == ray.get_runtime_context().get_node_id())

    def _open(self, deadline: Deadline, ports: Mapping[str, int]) -> None:
        session = secrets.token_hex(16)
        hosts = data_hosts(self.placement)
        hello = self._all({role: actor.hello.remote() for role, actor in self.actors.items()}, deadline)
        self.pids = {role: answer["pid"] for role, answer in hello.items()}
        self.remarks = niceness.remarks({role: answer["niceness"] for role, answer in hello.items()})
        counted = {role: answer["oom_kills"] for role, answer in hello.items()}
        self.oom_kills = {role: OomKills(**before) for role, before in counted.items() if before is not None}
        opened = self._all(
            {
                role: actor.open.remote(hosts[role], ports.get(role, 0), session, self.timeout_s)
                for role, actor in self.actors.items()
            },
            deadline,
        )
        self.exporters = {role: tuple(answer["metrics_address"]) for role, answer in opened.items()}
        self._bound = {role: tuple(answer["address"]) for role, answer in opened.items()}
        if self.network.tls:
            self._certify(deadline)

    def _connect(self, deadline: Deadline, shaping: str) -> None:
        self.links = self._undo.enter_context(links_between(self.network, shaping, self._bound, self.placement))
        self._all({role: a.connect.remote(self.links.dial[role]) for role, a in self.actors.items()}, deadline)

    def _certify(self, deadline: Deadline) -> None:
        """Gives each party a certificate of an authority whose key is dropped afterwards."""
        asked = self._all({role: actor.request_certificate.remote() for role, actor in self.actors.items()}, deadline)
        authority = Authority()
        signed = {role: authority.sign(role, answer["request"]) for role, answer in asked.items()}
        self._all(
            {
                role: actor.take_certificate.remote(signed[role], authority.certificate)
                for role, actor in self.actors.items()
            },
            deadline,
        )

    def _all(
        self, refs: dict[str, Any], deadline: Deadline, watch: Callable[[Progress], None] = lambda _: None
    ) -> Answers:
        """The answers of all roles; the first failure ends the wait, once its root cause is known."""
        answers: Answers = {}
        failures: list[CellFailure] = []
        settle_at = math.inf
        pending = {ref: role for role, ref in refs.items()}
        self._reports.restart()
        while pending and not any(failure.peer is None for failure in failures) and time.monotonic() < settle_at:
            deadline.check()
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=min(POLL_S, deadline.left))
            self._reports.poll()
            for ref in ready:
                role = pending.pop(ref)
                try:
                    answers[role] = self._answer(role, ref)
                except CellFailure as failure:
                    failures.append(failure)
                    settle_at = min(settle_at, time.monotonic() + _GRACE_S)
            watch(self.progress)
        if failures:
            raise root_cause(failures, {role: self._reports.seen(role) for role in self.actors})
        return answers

    def _require_news(self) -> None:
        """Fail if a party is out of the driver's reach, even if no peer waits for it.

        Its peers, who know more, get the time to report it first.
        """
        limit = self.timeout_s + _SILENT_S
        if silent := self._reports.silent(limit):
            raise self.overdue(f"no news from {', '.join(silent)} for {limit:g} s: gone with its host, or cut off")

    def _answer(self, role: str, ref: Any) -> Any:
        try:
            answer = ray.get(ref)
        except ray.exceptions.RayError as error:
            raise lost(role, error, self._reports.seen(role), self._oom(role)) from error
        if "error" in answer:
            raise reported(answer["error"], self._reports.seen(role))
        return answer

    def _oom(self, role: str) -> str:
        """Processes that the kernel killed for lack of memory since a party started, in words; empty if none."""
        before, node = self.oom_kills.get(role), self.placement.nodes[role]
        if before is None or not any(known["Alive"] for known in ray.nodes() if known["NodeID"] == node):
            return ""
        try:
            now = on_node(node, _OOM_S, read_oom_kills, before.file)
        except ray.exceptions.RayError:  # its host has gone meanwhile
            return ""
        killed = 0 if now is None else now.count - before.count
        who = "a process" if killed == 1 else f"{killed} processes"
        return f"the kernel has since killed {who} for want of memory ({before.file})" if killed else ""

    def _stack(self, role: str, ref: Any) -> str:
        try:
            return str(ray.get(ref, timeout=0))
        except ray.exceptions.RayError as error:
            return f"no stack: {type(error).__name__}; process {self.pids.get(role)} is {self._state(role)}"

    def _state(self, role: str) -> str:
        """The state of a party's process, if that process is on this machine."""
        if not self._is_here(role):
            return "on another machine"
        try:
            return str(psutil.Process(self.pids[role]).status())
        except (psutil.Error, KeyError):
            return "gone"


def data_hosts(placement: Placement) -> dict[str, str]:
    """The address on which each party binds its data port: loopback if they share one machine, its node's otherwise."""
    if len(set(placement.nodes.values())) == 1:
        return dict.fromkeys(placement.hosts, "127.0.0.1")
    return placement.hosts
