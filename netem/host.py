"""What is done on a host: probe, measure, shape, clean up. The same verbs everywhere, with plain values in and out."""

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol

from netem.errors import NetemError
from netem.prober import ProbeServer, measure_link, measure_rtt

Values = dict[str, Any]


class Site(Protocol):
    """Reaches the hosts that the parties are on.

    Attributes:
        hub: Name of the host that all packets between the others pass through, if there is one.
    """

    hub: str | None

    def call(self, host: str, verb: str, given: Mapping[str, Any]) -> Values:
        """Have `HostService.perform` called on a host, named by its data address, and return the answer.

        Raises:
            NetemError: As raised there.
        """


class HostService:
    """The verbs, performed in this process; one for each host, kept for as long as its probe servers are needed."""

    def __init__(self) -> None:
        self._probes: dict[int, ProbeServer] = {}
        self._verbs: dict[str, Callable[..., Values]] = {
            "probe_open": self._probe_open,
            "probe_close": self._probe_close,
            "rtt": self._rtt,
            "measure": self._measure,
        }

    def perform(self, verb: str, given: Mapping[str, Any]) -> Values:
        """Do one thing on this host.

        Args:
            verb: `probe_open(host)` gives the `address` of a prober there, and `probe_close(port)` ends it;
                `rtt(address)` gives `rtt_ms`; `measure(address, seconds)` gives the fields of `Measured`.
            given: The verb's arguments.

        Raises:
            NetemError: It could not be done; the message says why.
        """
        if verb not in self._verbs:
            raise NetemError(f"verb {verb!r} is unknown; use one of {', '.join(self._verbs)}")
        return self._verbs[verb](**given)

    def close(self) -> None:
        """Close all probe servers."""
        for server in self._probes.values():
            server.close()
        self._probes.clear()

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
        return {"rtt_ms": trips[len(trips) // 2] * 1e3}

    def _measure(self, address: tuple[str, int], seconds: float) -> Values:
        return asdict(measure_link((address[0], address[1]), seconds))


class LocalSite:
    """All hosts are this machine and this network namespace."""

    hub: str | None = None

    def __init__(self) -> None:
        self._service = HostService()

    def call(self, host: str, verb: str, given: Mapping[str, Any]) -> Values:  # noqa: ARG002 - there is but one
        """See `Site.call`."""
        return self._service.perform(verb, given)
