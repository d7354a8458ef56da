"""Are the data ports free, and does each host reach each other's data address? Found by listening and connecting."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.doctor.finding import Finding, fine, wrong
from orchestrator.doctor.hosts import Host, Unanswered
from orchestrator.run.group import data_hosts
from orchestrator.run.placement import Placement

_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Endpoint:
    """A data address to listen on.

    Attributes:
        host: The host that it is on.
        address: IP address.
        port: TCP port; 0 where any free one will do.
        role: The party that needs this port; empty where none does.
    """

    host: Host
    address: str
    port: int = 0
    role: str = ""

    def __str__(self) -> str:
        return f"{self.host.name}, {self.role} port {self.port}" if self.port else self.host.name


def endpoints_of(hosts: Sequence[Host], placement: Placement | None, ports: Mapping[str, int]) -> list[Endpoint]:
    """Any port on each host, and the fixed ports of the parties that have a slot.

    Args:
        hosts: All hosts.
        placement: The slots reserved for the parties, if there are any.
        ports: Fixed data ports by role.
    """
    endpoints = [Endpoint(host, host.address if len(hosts) > 1 else _LOOPBACK) for host in hosts]
    if placement is not None:
        at, by_node = data_hosts(placement), {host.node: host for host in hosts}
        placed = [(role, port) for role, port in ports.items() if placement.nodes[role] in by_node]
        endpoints += [Endpoint(by_node[placement.nodes[role]], at[role], port, role) for role, port in placed]
    return endpoints


def reach(hosts: Sequence[Host], endpoints: Sequence[Endpoint]) -> Iterator[Finding]:
    """A row for each endpoint, and one for each host that must reach it."""
    listening: dict[Endpoint, tuple[str, int]] = {}
    for endpoint in endpoints:
        finding, address = _listen(endpoint)
        yield finding
        if address is not None:
            listening[endpoint] = address
    asked = [
        (source, endpoint, source.begin("rtt", address))
        for endpoint, address in listening.items()
        for source in _sources(hosts, endpoint)
    ]
    for source, endpoint, pending in asked:  # the hosts connect in parallel
        try:
            answer = source.end(pending)
        except Unanswered as error:
            answer = {"error": str(error)}
        yield _pair(source, endpoint, answer)


def _listen(endpoint: Endpoint) -> tuple[Finding, tuple[str, int] | None]:
    try:
        answer = endpoint.host.ask("listen", endpoint.address, endpoint.port)
    except Unanswered as error:
        answer = {"error": str(error)}
    if "error" not in answer:
        text = f"port {endpoint.port} is free" if endpoint.port else f"a free port on {endpoint.address} is available"
        return fine("port", str(endpoint), text), tuple(answer["address"])
    if endpoint.port:
        listing = f"`ss -ltnp 'sport = :{endpoint.port}'`"
        fix = f"stop the service that listens there ({listing}), or change data_ports.{endpoint.role}"
    else:
        fix = (
            f"let the host own {endpoint.address} (`ip address`), or start Ray there with --node-ip-address of its own"
        )
    return wrong(
        "port", str(endpoint), f"cannot listen on {endpoint.address} port {endpoint.port}: {answer['error']}", fix
    ), None


def _sources(hosts: Sequence[Host], endpoint: Endpoint) -> list[Host]:
    """The hosts that must reach an endpoint: the others, or its own where all parties are on one and use loopback."""
    others = [host for host in hosts if host is not endpoint.host]
    return others if others and endpoint.address == endpoint.host.address else [endpoint.host]


def _pair(source: Host, endpoint: Endpoint, answer: Mapping[str, float | str]) -> Finding:
    where = f"{source.name} > {endpoint}"
    if "error" not in answer:
        return fine("reach", where, f"round trip {answer['rtt_ms']:.3f} ms")
    fix = (
        f"let {source.name} open TCP connections to {endpoint.address}, "
        f"{f'port {endpoint.port}' if endpoint.port else 'all ports (or name data_ports and open those)'}: "
        f"look at firewalls, security groups and routes"
    )
    return wrong("reach", where, f"no connection to {endpoint.address}: {answer['error']}", fix)
