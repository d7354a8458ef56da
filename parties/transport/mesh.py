"""How the parties find each other: every pair connects once and says hello, or the error names who is missing."""

import asyncio
from collections.abc import Iterator, Mapping
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


class Listener:
    """A bound TCP port that waits for the mesh; port 0 takes a free one. Backlogged dials wait for `connect`.

    Raises:
        AddressInUse: Another process listens on host and port.
        AddressUnusable: The host is no address of this machine, or the port may not be bound.
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
    """The links of one party by the role of the peer; a context manager that closes them."""

    def __init__(self, links: dict[str, Link]) -> None:
        self._links = links

    def __getitem__(self, role: str) -> Link:
        return self._links[role]

    def __iter__(self) -> Iterator[str]:
        return iter(self._links)

    def __len__(self) -> int:
        return len(self._links)

    def close(self) -> None:
        """Closes every link; each peer notices at once."""
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

    Hellos are JSON and not metered. A hello with another session, version or role is answered with the reason and
    dropped; honest parties still get in. The session keeps cells apart, it is no protection from an attacker.

    Args:
        role: Our own role, one of `ROLES`.
        listener: Where the higher ranks dial us.
        addresses: Where to dial each role, as seen from here; our own entry is not used.
        session: A random string that all parties were given.
        meter: Counts what the links carry.
        timeout_s: For the whole mesh to come up, and then for each link.
        identity: Who we are, for mutual TLS with every peer, begun after its hello; all parties have one, or none has.

    Raises:
        PeersMissing: Not everyone was there in time; it names who.
        HelloRefused: A peer refused us, for instance because it is in another session.
        PeerUnproven: A peer has not the certificate of its role.
        ValueError: A role is unknown.
    """
    for name in (role, *addresses):
        if name not in ROLES:
            raise ValueError(f"role {name!r} is unknown; use one of {', '.join(ROLES)}")
    peers = [peer for peer in ROLES if peer in addresses and peer != role]
    lower = {peer: addresses[peer] for peer in peers if ROLES.index(peer) < ROLES.index(role)}
    higher = [peer for peer in peers if peer not in lower]
    sockets = asyncio.run(Rendezvous(role, session, listener.socket, dial=lower, expect=higher).meet(timeout_s))
    if identity is None:
        return Mesh({peer: Link(sockets[peer], peer, meter, timeout_s) for peer in peers})
    secured: dict[str, TlsSocket] = {}
    try:
        for peer in peers:  # all in the order of ranks, so that nobody waits in a circle
            secured[peer] = identity.secure(sockets[peer], peer, dialled=peer in lower, timeout_s=timeout_s)
    except PartyError:
        for session_or_socket in (sockets | secured).values():
            session_or_socket.close()
        raise
    return Mesh({peer: Link(sock, peer, meter, timeout_s) for peer, sock in secured.items()})
