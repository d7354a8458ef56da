"""The links between the parties of a group: made as the cell asks, measured before and after, always undone."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from netem import HostService, LinkReading, LocalSite, Measured, NetemError, Pair, ShapedNetwork, Site, shape
from netem.backends.request import Request
from netem.lab import attached
from netem.shaping import choose
from orchestrator.experiment.networks import ROLES as SHAPED
from orchestrator.experiment.networks import ResolvedNetwork
from orchestrator.records.record import Status
from orchestrator.run.failures import CellFailure
from orchestrator.run.placement import Placement

Address = tuple[str, int]
Readings = Mapping[Pair, Measured]

_ANSWER_S = 60.0
_START_S = 120.0  # of a host actor's process, which begins with its first call: long on a busy machine
_FRESH_S = 10.0
_TOLD = ("scheduling", "compensation_ms")
_LEASE_S = 24 * 3600.0  # a group may work for a day; the janitor removes the rules of owners that died before


class Links:
    """Links under a network, between the data addresses that the parties bound.

    Attributes:
        backend: The back end that shapes them: `none`, `proxy`, `tc` or `relay`.
        details: Details of the back end, for the record.
        dial: Address by the role that dials and the role that is dialled; the referee's links are left as they are.
    """

    def __init__(self, shaped: ShapedNetwork, bound: Mapping[str, Address]) -> None:
        self._shaped = shaped
        self.backend = shaped.backend
        self.details = {name: shaped.details[name] for name in _TOLD if name in shaped.details}
        self.dial = {
            role: {
                peer: shaped.dial.get(role, {}).get(peer, address) for peer, address in bound.items() if peer != role
            }
            for role in bound
        }
        self._latest: tuple[float, Readings] = (-_FRESH_S, {})

    def measure(self, watch: Callable[[str], None] = lambda _: None) -> Readings:
        """Round-trip time and throughput of every ordered pair of the protocol's parties; they should be idle.

        Args:
            watch: Called before each probe with what it measures, in words; what it raises ends the measurement.

        Returns:
            A reading of each pair; without those of which nothing is asked and that could not be measured.

        Raises:
            CellFailure: A link with requested values could not be measured.
        """
        with _as_cell_failure(Status.SHAPING_FAILED):
            readings = self._shaped.measure(
                seconds=0.5 if self._shaped.profile.shaped else 0.1,
                watch=lambda pair: watch(f"measuring the link {pair[0]}>{pair[1]}"),
            )
        self._latest = (time.monotonic(), readings)
        return readings

    def recent(self) -> Readings:
        """The readings of the latest measurement if it ended in the last ten seconds, as that after the former cell."""
        taken, readings = self._latest
        return readings if time.monotonic() - taken < _FRESH_S else {}

    def deviations(self, measured: Readings) -> tuple[str, ...]:
        """The deviations from the requested values, in words; empty if all are within the tolerance."""
        return self._shaped.deviations(measured)

    def readings(self, before: Readings | None, after: Readings | None) -> tuple[LinkReading, ...]:
        """What a record says of the links."""
        return self._shaped.readings(before, after)


class LinkMeasurements:
    """The measurements of one cell's links so far.

    Args:
        links: The links; None until there are any.
        watch: See `Links.measure`.
    """

    def __init__(self, links: Links | None = None, watch: Callable[[str], None] = lambda _: None) -> None:
        self._links = links
        self._watch = watch
        self._taken: dict[str, Readings] = {}

    def before(self) -> None:
        """Measure before the cell, unless a cell on the same links has just ended: its last readings count for both.

        Raises:
            CellFailure: `shaping_failed`: the links are not what was asked for, so that the cell must not run.
        """
        self._take("before", Status.SHAPING_FAILED, None if self._links is None else self._links.recent())

    def after(self) -> None:
        """Measure after the cell.

        Raises:
            CellFailure: `shaping_drifted`: the links are not what was asked for any more.
        """
        self._take("after", Status.SHAPING_DRIFTED)

    def _take(self, when: str, status: Status, known: Readings | None = None) -> None:
        if self._links is None:
            return
        self._taken[when] = known or self._links.measure(self._watch)
        if wrong := self._links.deviations(self._taken[when]):
            message = f"links are not as asked for: {'; '.join(wrong)}; the record holds what was measured"
            raise CellFailure(status, message)

    @property
    def backend(self) -> str:
        """The back end that shaped the links."""
        return "none" if self._links is None else self._links.backend

    @property
    def details(self) -> Mapping[str, str | float]:
        """Details of the back end."""
        return {} if self._links is None else self._links.details

    @property
    def readings(self) -> tuple[LinkReading, ...]:
        """The readings for the cell's record."""
        return () if self._links is None else self._links.readings(self._taken.get("before"), self._taken.get("after"))

    @property
    def warnings(self) -> tuple[str, ...]:
        """The links that could not be measured, in words; the cell ran anyway, since nothing is requested of them."""
        return tuple(
            f"the link {link.src}>{link.dst} could not be measured {when} the cell; nothing is asked of it"
            for when, measured in self._taken.items()
            for link in self.readings
            if (link.src, link.dst) not in measured
        )


@contextmanager
def links_between(
    network: ResolvedNetwork, shaping: str, bound: Mapping[str, Address], placement: Placement
) -> Iterator[Links]:
    """Shape the links between the protocol's parties for as long as the block lasts.

    Args:
        network: The requested values of the links.
        shaping: The back end to use, or `auto`.
        bound: Data address of each role.
        placement: The placement of the parties.

    Raises:
        CellFailure: They could not be shaped; what had been applied was taken back.
    """
    endpoints = {role: bound[role] for role in SHAPED}
    profile = network.profile()
    backend = shaping if profile.shaped else "none"
    with (
        _reached(placement) as site,
        _as_cell_failure(Status.SHAPING_FAILED),
        shape(profile, endpoints, backend=backend, site=site, ttl_s=_LEASE_S) as shaped,
    ):
        yield Links(shaped, bound)


def shaper(network: ResolvedNetwork, shaping: str, hosts: Mapping[str, str], placement: Placement) -> str:
    """The back end that would make the links so; nothing is changed.

    Args:
        network: The requested values of the links.
        shaping: The back end to use, or `auto`.
        hosts: Data address of each role, without its port.
        placement: The placement of the parties.

    Raises:
        BackendUnavailable: There is none; its `reasons` say why.
        NetemError: A host did not answer.
    """
    profile, endpoints = network.profile().named(SHAPED), {role: (hosts[role], 0) for role in SHAPED}
    with _reached(placement) as site:
        return choose(Request(profile, endpoints, {}, site, run="", ttl_s=0.0), shaping if profile.shaped else "none")


@contextmanager
def _reached(placement: Placement) -> Iterator[Site]:
    """The site of the parties; what was started for it ends with the block."""
    site = _site(placement)
    try:
        yield site
    finally:
        if isinstance(site, _Cluster):
            site.close()


@contextmanager
def _as_cell_failure(status: Status) -> Iterator[None]:
    """Raises errors of netem as failures of the cell."""
    try:
        yield
    except NetemError as error:
        raise CellFailure(status, str(error)) from error


def _site(placement: Placement) -> Site:
    """How netem reaches the parties' hosts: this machine, the lab that we are in, or the cluster."""
    if (lab := attached()) is not None:
        return lab
    if set(placement.nodes.values()) == {ray.get_runtime_context().get_node_id()}:
        return LocalSite()
    return _Cluster(placement)


class _HostActor:
    """Netem's verbs on one node of the cluster, in a process that no party's death takes along."""

    def __init__(self) -> None:
        self._service = HostService()

    def perform(self, verb: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """`HostService.perform`; its errors as text, since they need not survive a pickle."""
        try:
            return {"answer": self._service.perform(verb, given)}
        except NetemError as error:
            return {"error": str(error)}


class _Cluster:
    """A `Site` on a Ray cluster: one `_HostActor` on each node that has a party."""

    hub: str | None = None

    def __init__(self, placement: Placement) -> None:
        remote = ray.remote(_HostActor)
        on = {host: placement.nodes[role] for role, host in placement.hosts.items()}
        self._actors = {
            host: remote.options(
                num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node, soft=False)
            ).remote()
            for host, node in on.items()
        }
        self._starting = set(self._actors)

    def call(self, host: str, verb: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """See `netem.host.Site.call`."""
        try:
            limit_s = _ANSWER_S + given.get("limit_s", 0.0)  # a slow link takes its time to be measured
            limit_s += _START_S if host in self._starting else 0.0
            reply = ray.get(self._actors[host].perform.remote(verb, dict(given)), timeout=limit_s)
            self._starting.discard(host)
        except ray.exceptions.RayError as error:
            raise NetemError(f"{host} does not answer to {verb}: {type(error).__name__}") from error
        if "error" in reply:
            raise NetemError(f"{host}: {reply['error']}")
        answer: dict[str, Any] = reply["answer"]
        return answer

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors.values():
            ray.kill(actor)
