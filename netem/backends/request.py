"""What every back end is asked, and what it answers."""

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
    """Links to be had.

    Attributes:
        profile: What they should be like; pairs bear the names of the endpoints.
        endpoints: Data address of each party, in order.
        probes: Address of a prober on the same host as each party.
        site: Reaches the hosts.
        run: Whose they are, for leases and error messages.
        ttl_s: Seconds after which the rules may be removed by anyone.
        replace: Whether a root qdisc that is not ours may be replaced.
        ports: How many ports are each party's, from that of its data address on.
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
        """What is asked of one direction."""
        return self.profile.link(*pair)

    @property
    def on_loopback(self) -> bool:
        """Whether all parties are on loopback of one machine."""
        return all(ipaddress.ip_address(host).is_loopback for host, _ in self.endpoints.values())


@dataclass(frozen=True)
class Paths:
    """What to dial while a back end is at work.

    Attributes:
        data: For each ordered pair, what the first dials to reach the second's data address.
        probe: The same for the second's prober.
        details: What a record should say of the back end, as plain values.
    """

    data: Mapping[Pair, Address]
    probe: Mapping[Pair, Address]
    details: Mapping[str, Any] = field(default_factory=dict)


def direct(request: Request, **details: Any) -> Paths:
    """Paths without any detour."""
    return Paths(
        {(src, dst): request.endpoints[dst] for src, dst in request.pairs},
        {(src, dst): request.probes[dst] for src, dst in request.pairs},
        details,
    )
