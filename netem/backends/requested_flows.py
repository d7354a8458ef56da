"""The packet flows of a request, from the addresses of its parties."""

import ipaddress

from netem.backends.request import Request
from netem.flows import Flow, Ports


def flows_of(request: Request) -> tuple[Flow, ...]:
    """One flow per ordered pair with a shaped link, with the ports of both parties and of their probers."""
    return tuple(
        Flow(request.endpoints[src][0], request.endpoints[dst][0], _ports(request, src, dst), request.link((src, dst)))
        for src, dst in request.pairs
        if request.link((src, dst)).shaped
    )


def unshapable(request: Request) -> str:
    """Why the packets between these parties cannot be distinguished or intercepted; empty if they can."""
    seen: dict[str, str] = {}
    for name, (host, _) in request.endpoints.items():
        address = ipaddress.ip_address(host)
        if address.version != 4:
            return f"{name} has the address {host}, and only IPv4 is shaped"
        if address.is_loopback:
            return f"{name} is on loopback, which all parties and all directions would share"
        if host in seen:
            return f"{seen[host]} and {name} share the host {host}; give each its own"
        seen[host] = name
    return ""


def _ports(request: Request, src: str, dst: str) -> tuple[Ports, ...]:
    data = [Ports.block(request.endpoints[name][1], request.ports) for name in (src, dst)]
    probes = [Ports(request.probes[name][1]) for name in (src, dst)]
    return tuple(dict.fromkeys(data + probes))
