"""How the parties find each other: every pair connects once and says hello, or the error names who is missing."""

import asyncio
import errno
import hmac
import itertools
import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from parties.errors import AddressInUse, AddressUnusable, HelloRefused, PeersMissing
from parties.link import Link
from parties.meter import StageMeter

ROLES = ("client", "server", "dealer", "referee")  # a role's rank is its index here
PROTOCOL_VERSION = 1
MAX_HELLO_BYTES = 4096
RETRY_SECONDS = 0.05

Address = tuple[str, int]
log = logging.getLogger(__name__)


class Listener:
    """A bound TCP port that waits for the mesh; port 0 takes a free one. Backlogged dials wait for `connect`.

    Raises:
        AddressInUse: another process listens on host and port.
        AddressUnusable: the host is no address of this machine, or the port may not be bound.
    """

    def __init__(self, host: str, port: int = 0) -> None:
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self.socket = socket.create_server(address[:2], family=family, backlog=len(ROLES) * 4)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise AddressInUse(host, port) from error
            raise AddressUnusable(host, port, error.strerror or str(error)) from error
        self.socket.setblocking(False)

    @property
    def address(self) -> Address:
        """The (host, port) that peers dial."""
        host, port = self.socket.getsockname()[:2]
        return host, port

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
) -> Mesh:
    """Connects `role` with every other role in `addresses`: it dials the lower ranks and is dialled by the higher.

    Hellos are JSON and not metered. A hello with another session, version or role is answered with the reason and
    dropped; honest parties still get in. The session keeps cells apart, it is no protection from an attacker.

    Args:
        role: our own role, one of `ROLES`.
        listener: where the higher ranks dial us.
        addresses: where to dial each role, as seen from here; our own entry is not used.
        session: a random string that all parties were given.
        meter: counts what the links carry.
        timeout_s: for the whole mesh to come up, and then for each link.

    Raises:
        PeersMissing: not everyone was there in time; it names who.
        HelloRefused: a peer refused us, for instance because it is in another session.
        ValueError: a role is unknown.
    """
    for name in (role, *addresses):
        if name not in ROLES:
            raise ValueError(f"role {name!r} is unknown; use one of {', '.join(ROLES)}")
    peers = {peer: address for peer, address in addresses.items() if peer != role}
    sockets = asyncio.run(_Rendezvous(role, listener, peers, session).meet(timeout_s))
    return Mesh({peer: Link(sockets[peer], peer, meter, timeout_s) for peer in sorted(peers, key=ROLES.index)})


class _Rendezvous:
    """The time between knowing the addresses and having a connection with each peer."""

    def __init__(self, role: str, listener: Listener, peers: Mapping[str, Address], session: str) -> None:
        self._role = role
        self._listener = listener
        self._peers = peers
        self._session = session
        self._to_dial = [peer for peer in peers if ROLES.index(peer) < ROLES.index(role)]
        self._joined: dict[str, socket.socket] = {}
        self._complete = asyncio.Event()
        self._trouble: dict[str, str] = {}
        self._strangers: set[socket.socket] = set()
        self._greetings: set[asyncio.Task[None]] = set()

    async def meet(self, timeout_s: float) -> dict[str, socket.socket]:
        """Dials and accepts side by side until everyone is here; closes whatever else has connected."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._listener.socket, self._accept)
        dials = [asyncio.create_task(self._dial(peer)) for peer in self._to_dial]
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*dials)
                if len(self._joined) < len(self._peers):
                    await self._complete.wait()
        except BaseException as error:
            for sock in self._joined.values():
                sock.close()
            if isinstance(error, TimeoutError):
                raise PeersMissing(self._missing(), timeout_s) from None
            raise
        finally:
            loop.remove_reader(self._listener.socket)
            await _cancel(*dials, *self._greetings)
            for sock in self._strangers:
                sock.close()
        return self._joined

    def _join(self, peer: str, sock: socket.socket) -> None:
        self._joined[peer] = sock
        if len(self._joined) == len(self._peers):
            self._complete.set()

    def _missing(self) -> dict[str, str]:
        here = "it has not dialled {} port {}".format(*self._listener.address)
        return {peer: self._trouble.get(peer, here) for peer in self._peers if peer not in self._joined}

    async def _dial(self, peer: str) -> None:
        for attempt in itertools.count():
            try:
                sock, answer = await self._knock(peer, attempt)
            except (OSError, ValueError) as error:
                self._trouble[peer] = "{} port {}: {}".format(*self._peers[peer], _why(error))
                await asyncio.sleep(RETRY_SECONDS)
            else:
                break
        if "refused" in answer:
            sock.close()
            raise HelloRefused(peer, str(answer["refused"]))
        self._join(peer, sock)

    async def _knock(self, peer: str, attempt: int) -> tuple[socket.socket, dict[str, Any]]:
        """Connects to one of the addresses of a peer, says hello and waits for its answer."""
        loop = asyncio.get_running_loop()
        host, port = self._peers[peer]
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[attempt % len(found)]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            _refuse_ourselves(sock)
            hello = {"version": PROTOCOL_VERSION, "session": self._session, "role": self._role, "to": peer}
            _say(sock, hello)
            return sock, await _hear(sock)
        except BaseException:
            sock.close()
            raise

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.socket.accept()
        except OSError:  # it has left again
            return
        sock.setblocking(False)
        self._strangers.add(sock)
        self._greetings.add(asyncio.create_task(self._greet(sock)))

    async def _greet(self, sock: socket.socket) -> None:
        """Lets in the sender of a proper hello; a silent stranger keeps only its own task waiting."""
        role = ""
        try:
            hello = await _hear(sock)
            role, objection = str(hello.get("role")), self._objection(hello)
            _say(sock, {"refused": objection} if objection else {"welcome": self._role})
        except (OSError, ValueError) as error:
            objection = f"no hello ({_why(error)})"
        if objection is None:
            self._strangers.discard(sock)
            self._join(role, sock)
            return
        sock.close()
        log.warning("%s refused a connection: %s", self._role, objection)
        if role in self._peers and role not in self._joined:
            self._trouble[role] = f"refused its hello: {objection}"

    def _objection(self, hello: dict[str, Any]) -> str | None:
        """What is wrong with a hello; names no session, for a session is a secret."""
        role, session = hello.get("role"), str(hello.get("session"))
        if hello.get("version") != PROTOCOL_VERSION:
            return f"it speaks version {hello.get('version')!r:.20}, we speak {PROTOCOL_VERSION}; install one version"
        if not hmac.compare_digest(session.encode(errors="replace"), self._session.encode()):
            return "it is in another session"
        if hello.get("to") != self._role:
            return f"it meant to reach {hello.get('to')!r:.20}, this is {self._role}; check its addresses"
        if role in self._joined:
            return f"a {role} is here already"
        if role not in self._peers or role in self._to_dial:
            return f"no {role!r:.20} is expected to dial {self._role}"
        return None


def _say(sock: socket.socket, message: dict[str, Any]) -> None:
    """Sends a length and JSON; the buffer of a new connection takes it at once."""
    text = json.dumps(message).encode()
    sock.sendall(len(text).to_bytes(4) + text)


async def _hear(sock: socket.socket) -> dict[str, Any]:
    """Reads what `_say` sent, and not a byte of what follows.

    Raises:
        OSError: the connection was closed or reset.
        ValueError: it is something else than `_say` sends.
    """
    size = int.from_bytes(await _read(sock, 4))
    if size > MAX_HELLO_BYTES:
        raise ValueError("something else than this protocol")
    try:
        message = json.loads(await _read(sock, size))
    except RecursionError as error:
        raise ValueError("too deep") from error
    if not isinstance(message, dict):
        raise ValueError("not an object")  # noqa: TRY004 - it is about what was sent, not about our types
    return message


async def _read(sock: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    received = b""
    while len(received) < size:
        part = await loop.sock_recv(sock, size - len(received))
        if not part:
            raise ConnectionResetError("closed without an answer")
        received += part
    return received


def _refuse_ourselves(sock: socket.socket) -> None:
    """TCP lets a dial of a free local port connect to itself, when chance gives it that same port to dial from."""
    if sock.getsockname() == sock.getpeername():
        raise ConnectionRefusedError("nobody listens")


def _why(error: OSError | ValueError) -> str:
    number = getattr(error, "errno", None) or 0
    return os.strerror(number) if number > 0 else str(error)


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
