"""Operations on a host: probe, measure, shape. Arguments and results are plain values."""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from netem import tc_apply, tc_run
from netem.capability import capability
from netem.errors import NetemError, ShapingError
from netem.flows import Flow
from netem.lease import Lease
from netem.prober import ProbeServer, measure_link, measure_rtt
from netem.route import device_towards

Values = dict[str, Any]

_SPREAD = 2.0  # of the median over the least round trip: more is a busy machine, and the idle link has the least


class Site(Protocol):
    """Access to the hosts of the parties.

    Attributes:
        hub: Name of the host that forwards all packets between the others, if there is one.
    """

    hub: str | None

    def call(self, host: str, verb: str, given: Mapping[str, Any]) -> Values:
        """Call `HostService.perform` on a host, named by its data address, and return the result.

        Raises:
            NetemError: As raised on the host.
        """


class HostService:
    """Performs the verbs in this process; one instance per host, which lives as long as its probe servers."""

    def __init__(self) -> None:
        self._probes: dict[int, ProbeServer] = {}
        self._leases: dict[str, Lease] = {}
        self._verbs: dict[str, Callable[..., Values]] = {
            "probe_open": self._probe_open,
            "probe_close": self._probe_close,
            "rtt": self._rtt,
            "measure": self._measure,
            "capability": self._capability,
            "tc_apply": self._tc_apply,
            "tc_remove": self._tc_remove,
        }

    def perform(self, verb: str, given: Mapping[str, Any]) -> Values:
        """Perform one verb on this host.

        Args:
            verb: `probe_open(host)` returns the `address` of a new prober, and `probe_close(port)` closes it;
                `rtt(address)` returns `rtt_ms`, of the idle link; `measure(address, seconds, rate_mbit, limit_s)`
                returns the fields of `Measured`; `capability` returns the fields of `Capability`; `tc_apply(flows, run,
                ttl_s, replace)` returns a `lease`, and `tc_remove(lease)` ends it.
            given: Arguments of the verb.

        Raises:
            NetemError: The verb failed or is unknown; the message gives the reason.
        """
        if verb not in self._verbs:
            raise NetemError(f"verb {verb!r} is unknown; use one of {', '.join(self._verbs)}")
        return self._verbs[verb](**given)

    def close(self) -> None:
        """Close all probe servers and remove all rules."""
        for server in self._probes.values():
            server.close()
        self._probes.clear()
        while self._leases:
            tc_run.remove(self._leases.popitem()[1])

    def _probe_open(self, host: str) -> Values:
        try:
            server = ProbeServer(host)
        except OSError as error:
            raise NetemError(f"cannot listen on {host} of {socket.gethostname()}: {error}") from error
        self._probes[server.address[1]] = server
        return {"address": server.address, "pid": os.getpid()}

    def _probe_close(self, port: int) -> Values:
        if server := self._probes.pop(port, None):
            server.close()
        return {}

    def _rtt(self, address: tuple[str, int]) -> Values:
        trips = sorted(measure_rtt((address[0], address[1])))
        least, median = trips[0], trips[len(trips) // 2]
        return {"rtt_ms": (median if median < _SPREAD * least else least) * 1e3}

    def _measure(self, address: tuple[str, int], seconds: float, rate_mbit: float | None, limit_s: float) -> Values:
        return asdict(measure_link((address[0], address[1]), seconds, rate_mbit, limit_s))

    def _capability(self) -> Values:
        return asdict(capability())

    def _tc_apply(self, flows: Sequence[Values], run: str, ttl_s: float, replace: bool) -> Values:
        parsed = [Flow.from_plain(flow) for flow in flows]
        devices = {device_towards(flow.dst) for flow in parsed}
        if len(devices) != 1:
            raise ShapingError(
                f"the parties are reached through several devices ({', '.join(sorted(devices))}); use one network"
            )
        lease = tc_apply.apply(devices.pop(), parsed, run, ttl_s, replace=replace)
        self._leases[lease.id] = lease
        return {"lease": lease.id}

    def _tc_remove(self, lease: str) -> Values:
        if (held := self._leases.pop(lease, None)) is not None:
            tc_run.remove(held)
        return {}


class LocalSite:
    """A site whose only host is this machine, in this network namespace."""

    hub: str | None = None

    def __init__(self) -> None:
        self._service = HostService()

    def call(self, host: str, verb: str, given: Mapping[str, Any]) -> Values:  # noqa: ARG002 - there is only one host
        """See `Site.call`."""
        return self._service.perform(verb, given)
