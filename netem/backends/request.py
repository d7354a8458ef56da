"""Input and output of every back end: a request for shaped links, and the addresses to dial."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

from netem.host import Site
from netem.prober import Address
from netem.profile import Link, NetworkProfile, Pair


@dataclass(frozen=True)
class Request:
    """A request for shaped links.

    Attributes:
        profile: Requested values; pairs are named after the endpoints.
        endpoints: Data address of each party, in order.
        probes: Address of a prober on the host of each party.
        site: Access to the hosts.
        run: Owner of the rules, for leases and error messages.
        ttl_s: Seconds after which any process may remove the rules.
        replace: Whether a foreign root qdisc may be replaced.
        ports: Number of ports per party, starting with the port of its data address.
    """

    profile: NetworkProfile
    endpoints: Mapping[str, Address]
    probes: Mapping[str, Address]
    site: Site
    run: str
    ttl_s: float
    replace: bool = False
    ports: int = 1

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """All ordered pairs of parties."""
        return tuple(permutations(self.endpoints, 2))

    def link(self, pair: Pair) -> Link:
        """The requested link of one direction."""
        return self.profile.link(*pair)

    @property
    def on_loopback(self) -> bool:
        """Whether all parties are on loopback of one machine."""
        return all(ipaddress.ip_address(host).is_loopback for host, _ in self.endpoints.values())


@dataclass(frozen=True)
class Paths:
    """Addresses to dial while a back end is active.

    Attributes:
        data: For each ordered pair, the address that the first dials to reach the data port of the second.
        probe: The same for the prober of the second.
        details: Facts about the back end for the record, as plain values.
    """

    data: Mapping[Pair, Address]
    probe: Mapping[Pair, Address]
    details: Mapping[str, Any] = field(default_factory=dict)


def direct(request: Request, **details: Any) -> Paths:
    """Paths that lead directly to the endpoints."""
    return Paths(
        {(src, dst): request.endpoints[dst] for src, dst in request.pairs},
        {(src, dst): request.probes[dst] for src, dst in request.pairs},
        details,
    )
