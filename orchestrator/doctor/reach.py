"""Are the data ports free, and does each host reach each other's data address? Found by listening and connecting."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.doctor.finding import Finding, fine, wrong
from orchestrator.doctor.hosts import Host, Unanswered
from orchestrator.run.group import data_hosts
from orchestrator.run.placement import Placement

_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Door:
    """A data address to listen on.

    Attributes:
        host: The host that it is on.
        address: IP address.
        port: TCP port; 0 where any free one will do.
        role: The party that asks for this port; empty where none does.
    """

    host: Host
    address: str
    port: int = 0
    role: str = ""

    def __str__(self) -> str:
        return f"{self.host.name}, {self.role} port {self.port}" if self.port else self.host.name


def doors_of(hosts: Sequence[Host], placement: Placement | None, ports: Mapping[str, int]) -> list[Door]:
    """Any port on each host, and the fixed ports of the parties that have a seat.

    Args:
        hosts: All hosts.
        placement: The parties' seats, if they have any.
        ports: Fixed data ports by role.
    """
    doors = [Door(host, host.address if len(hosts) > 1 else _LOOPBACK) for host in hosts]
    if placement is not None:
        at, by_node = data_hosts(placement), {host.node: host for host in hosts}
        seated = [(role, port) for role, port in ports.items() if placement.nodes[role] in by_node]
        doors += [Door(by_node[placement.nodes[role]], at[role], port, role) for role, port in seated]
    return doors


def reach(hosts: Sequence[Host], doors: Sequence[Door]) -> Iterator[Finding]:
    """A row for each door, and one for each host that is to reach it."""
    listening: dict[Door, tuple[str, int]] = {}
    for door in doors:
        finding, address = _listen(door)
        yield finding
        if address is not None:
            listening[door] = address
    asked = [
        (source, door, source.begin("rtt", address))
        for door, address in listening.items()
        for source in _sources(hosts, door)
    ]
    for source, door, pending in asked:  # the hosts connect side by side
        try:
            answer = source.end(pending)
        except Unanswered as error:
            answer = {"error": str(error)}
        yield _pair(source, door, answer)


def _listen(door: Door) -> tuple[Finding, tuple[str, int] | None]:
    try:
        answer = door.host.ask("listen", door.address, door.port)
    except Unanswered as error:
        answer = {"error": str(error)}
    if "error" not in answer:
        told = f"port {door.port} is free" if door.port else f"a free port of {door.address} could be had"
        return fine("port", str(door), told), tuple(answer["address"])
    if door.port:
        fix = f"end what listens there (`ss -ltnp 'sport = :{door.port}'`), or change data_ports.{door.role}"
    else:
        fix = f"let the host own {door.address} (`ip address`), or start Ray there with --node-ip-address of its own"
    return wrong("port", str(door), f"cannot listen on {door.address} port {door.port}: {answer['error']}", fix), None


def _sources(hosts: Sequence[Host], door: Door) -> list[Host]:
    """Who is to reach a door: the other hosts, or its own where all parties are on one and use its loopback."""
    others = [host for host in hosts if host is not door.host]
    return others if others and door.address == door.host.address else [door.host]


def _pair(source: Host, door: Door, answer: Mapping[str, float | str]) -> Finding:
    where = f"{source.name} > {door}"
    if "error" not in answer:
        return fine("reach", where, f"round trip {answer['rtt_ms']:.3f} ms")
    fix = (
        f"let {source.name} open TCP connections to {door.address}, "
        f"{f'port {door.port}' if door.port else 'all ports (or name data_ports and open those)'}: look at firewalls, "
        f"security groups and routes"
    )
    return wrong("reach", where, f"no connection to {door.address}: {answer['error']}", fix)
