"""The mesh of links: every pair of parties connects once and exchanges hellos, or the error names the missing roles."""

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Self

from parties.address import Address, address_of, listen
from parties.errors import PartyError
from parties.metering.meter import StageMeter
from parties.transport.link import Link
from parties.transport.rendezvous import Rendezvous
from parties.transport.tls import Identity, TlsSocket

__all__ = ["ROLES", "Address", "Listener", "Mesh", "connect"]

ROLES = ("client", "server", "dealer", "referee")  # a role's rank is its index here


Sockets = Mapping[str, socket.socket | TlsSocket]


class Listener:
    """A bound TCP port for the mesh; port 0 takes a free one. Connections in the backlog wait for `connect`.

    Raises:
        AddressInUse: Another process listens on host and port.
        AddressUnusable: The host is not an address of this machine, or the port may not be bound.
    """

    def __init__(self, host: str, port: int = 0) -> None:
        self.socket = listen(host, port)
        self.socket.setblocking(False)

    @property
    def address(self) -> Address:
        """The (host, port) that peers dial."""
        return address_of(self.socket)

    def close(self) -> None:
        """Frees the port; open links stay."""
        self.socket.close()


class Mesh(Mapping[str, Link]):
    """The links of one party, by the role of the peer; a context manager that closes them.

    Args:
        links: The links.
        listener: The party's own, which the peers have dialled.
        dialled: Address at which this party reaches each peer.
        meet: Connects with every peer again, each at its address.
        secured: Whether the links have TLS.
    """

    def __init__(
        self,
        links: dict[str, Link],
        listener: Listener,
        dialled: Mapping[str, Address],
        meet: Callable[[Mapping[str, Address]], Sockets],
        *,
        secured: bool,
    ) -> None:
        self._links, self._listener, self._dialled, self._meet = links, listener, dialled, meet
        self._address = listener.address
        self.secured = secured

    def renew(self, addresses: Mapping[str, Address]) -> None:
        """Gives every link a new connection; all parties do so at once, while none of them uses a link.

        Congestion control knows nothing of the path before, which may be shaped differently now.

        Args:
            addresses: Address of each role, as for `connect`.

        Raises:
            PeersMissing, HelloRefused, PeerUnproven: As in `connect`; the links stay closed.
        """
        self.close()
        for peer, sock in self._meet(addresses).items():
            self._links[peer].renew(sock)
        self._dialled = addresses

    def hand_over_port(self) -> tuple[Address, Mapping[str, Address]]:
        """Frees the data port for a process of this party with links of its own, which are then shaped like these.

        Returns:
            The address to bind, and the address at which to dial each peer.
        """
        self._listener.close()
        return self._address, self._dialled

    def __getitem__(self, role: str) -> Link:
        return self._links[role]

    def __iter__(self) -> Iterator[str]:
        return iter(self._links)

    def __len__(self) -> int:
        return len(self._links)

    def close(self) -> None:
        """Closes every link, which each peer detects immediately."""
        for link in self._links.values():
            link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect(
    role: str,
    listener: Listener,
    addresses: Mapping[str, Address],
    session: str,
    meter: StageMeter,
    timeout_s: float,
    identity: Identity | None = None,
) -> Mesh:
    """Connects `role` with every other role in `addresses`: it dials the lower ranks and is dialled by the higher.

    Hellos are JSON and are not metered. A hello with another session, version or role gets the reason as a reply, and
    its connection is closed; correct parties can still join. The session separates cells; it is not a protection
    against attackers.

    Args:
        role: The role of this party, one of `ROLES`.
        listener: Listener that the higher ranks dial.
        addresses: Address of each role, as seen from this party; its own entry is not used.
        session: A random string that all parties share.
        meter: Counts the traffic of the links.
        timeout_s: Seconds for the whole mesh to connect, and then the timeout of each link.
        identity: Key and certificate for mutual TLS with every peer, after the hello; either all parties have one or
            none has.

    Raises:
        PeersMissing: Some roles did not join in time; the error names them.
        HelloRefused: A peer refused the hello, for instance because it is in another session.
        PeerUnproven: A peer does not have the certificate of its role.
        ValueError: A role is unknown.
    """
    for name in (role, *addresses):
        if name not in ROLES:
            raise ValueError(f"role {name!r} is unknown; use one of {', '.join(ROLES)}")
    meet = partial(_meet, role, listener, session, timeout_s, identity)
    links = {peer: Link(sock, peer, meter, timeout_s) for peer, sock in meet(addresses).items()}
    return Mesh(links, listener, addresses, meet, secured=identity is not None)


def _meet(
    role: str,
    listener: Listener,
    session: str,
    timeout_s: float,
    identity: Identity | None,
    addresses: Mapping[str, Address],
) -> Sockets:
    """A connection to each peer, in the order of ranks; see `connect`."""
    peers = [peer for peer in ROLES if peer in addresses and peer != role]
    lower = {peer: addresses[peer] for peer in peers if ROLES.index(peer) < ROLES.index(role)}
    higher = [peer for peer in peers if peer not in lower]
    sockets = asyncio.run(Rendezvous(role, session, listener.socket, dial=lower, expect=higher).meet(timeout_s))
    if identity is None:
        return {peer: sockets[peer] for peer in peers}
    secured: dict[str, TlsSocket] = {}
    try:
        for peer in peers:  # in the order of ranks, so that there is no deadlock
            secured[peer] = identity.secure(sockets[peer], peer, dialled=peer in lower, timeout_s=timeout_s)
    except PartyError:
        for session_or_socket in (sockets | secured).values():
            session_or_socket.close()
        raise
    return secured
