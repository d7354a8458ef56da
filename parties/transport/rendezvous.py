"""Rendezvous of the parties: dialling, hellos, and the checks of a hello."""

import asyncio
import hmac
import itertools
import json
import logging
import os
import socket
from collections.abc import Collection, Mapping
from typing import Any

from parties.address import Address, address_of
from parties.errors import HelloRefused, PeersMissing

PROTOCOL_VERSION = 2
MAX_HELLO_BYTES = 4096
RETRY_SECONDS = 0.05

log = logging.getLogger(__name__)


class Rendezvous:
    """Establishes a connection with each peer.

    Args:
        role: The role of this party.
        session: A secret that all parties of the mesh share.
        listener: Listening, non-blocking socket for the roles in `expect`.
        dial: Addresses of the roles to dial.
        expect: Roles that dial this party.
    """

    def __init__(
        self,
        role: str,
        session: str,
        listener: socket.socket,
        *,
        dial: Mapping[str, Address],
        expect: Collection[str],
    ) -> None:
        self._role = role
        self._session = session
        self._listener = listener
        self._to_dial = dial
        self._expected = expect
        self._joined: dict[str, socket.socket] = {}
        self._complete = asyncio.Event()
        self._trouble = dict.fromkeys(expect, "it has not dialled {} port {}".format(*address_of(listener)))
        self._unidentified: set[socket.socket] = set()
        self._answering: set[asyncio.Task[None]] = set()

    async def meet(self, timeout_s: float) -> dict[str, socket.socket]:
        """Dials and accepts concurrently until all roles have joined; closes all other connections.

        Raises:
            PeersMissing: Some roles did not join within `timeout_s` seconds.
            HelloRefused: A peer refused the hello.
        """
        loop = asyncio.get_running_loop()
        loop.add_reader(self._listener, self._accept)
        dials = [asyncio.create_task(self._dial(peer)) for peer in self._to_dial]
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*dials)
                if self._missing():
                    await self._complete.wait()
        except TimeoutError:
            if missing := self._missing():
                raise PeersMissing(missing, timeout_s) from None
        finally:
            loop.remove_reader(self._listener)
            await _cancel(*dials, *self._answering)
            for sock in (*self._unidentified, *(self._joined.values() if self._missing() else ())):
                sock.close()
        return self._joined

    def _join(self, peer: str, sock: socket.socket) -> None:
        self._joined[peer] = sock
        if not self._missing():
            self._complete.set()

    def _missing(self) -> dict[str, str]:
        """The last known reason for each role that has not joined."""
        everyone = (*self._to_dial, *self._expected)
        return {peer: self._trouble.get(peer, "no reply") for peer in everyone if peer not in self._joined}

    async def _dial(self, peer: str) -> None:
        for attempt in itertools.count():
            try:
                sock, answer = await self._send_hello(peer, attempt)
            except (OSError, ValueError) as error:
                self._trouble[peer] = "{} port {}: {}".format(*self._to_dial[peer], _why(error))
                await asyncio.sleep(RETRY_SECONDS)
            else:
                break
        if answer.get("welcome") != peer:
            sock.close()
            raise HelloRefused(peer, str(answer.get("refused", "it is something else; check its address")))
        self._join(peer, sock)

    async def _send_hello(self, peer: str, attempt: int) -> tuple[socket.socket, dict[str, Any]]:
        """Connects to one of the addresses of a peer, sends the hello and waits for the reply."""
        loop = asyncio.get_running_loop()
        host, port = self._to_dial[peer]
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[attempt % len(found)]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            refuse_self_connection(sock)
            hello = {"version": PROTOCOL_VERSION, "session": self._session, "role": self._role, "to": peer}
            _send(sock, hello)
            return sock, await _receive(sock)
        except BaseException:
            sock.close()
            raise

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:  # the peer has already disconnected
            return
        sock.setblocking(False)
        self._unidentified.add(sock)
        self._answering.add(asyncio.create_task(self._answer_hello(sock)))

    async def _answer_hello(self, sock: socket.socket) -> None:
        """Replies to a hello and accepts a valid one; a connection without a hello blocks only its own task."""
        role = ""
        try:
            hello = await _receive(sock)
            role, objection = str(hello.get("role")), self._objection(hello)
            _send(sock, {"refused": objection} if objection else {"welcome": self._role})
        except (OSError, ValueError) as error:
            objection = f"no hello ({_why(error)})"
        if objection is None:
            self._unidentified.discard(sock)
            self._join(role, sock)
            return
        sock.close()
        log.warning("%s refused a connection: %s", self._role, objection)
        if role in self._missing():
            self._trouble[role] = f"refused its hello: {objection}"

    def _objection(self, hello: dict[str, Any]) -> str | None:
        """Why a hello is refused, or None; never names a session, which is a secret."""
        role, session = hello.get("role"), str(hello.get("session"))
        if hello.get("version") != PROTOCOL_VERSION:
            version = f"{hello.get('version')!r:.20}"
            return f"its protocol version is {version}, ours is {PROTOCOL_VERSION}; install the same version"
        if not hmac.compare_digest(session.encode(errors="replace"), self._session.encode()):
            return "it is in another session"
        if hello.get("to") != self._role:
            return f"it was addressed to {hello.get('to')!r:.20}, this is {self._role}; check its addresses"
        if role not in self._expected:
            return f"no {role!r:.20} is expected to dial {self._role}"
        if role in self._joined:
            return f"a {role} has already joined"
        return None


def _send(sock: socket.socket, message: dict[str, Any]) -> None:
    """Sends a message as length and JSON; it fits in the buffer of a new connection, so it does not block."""
    text = json.dumps(message).encode()
    sock.sendall(len(text).to_bytes(4) + text)


async def _receive(sock: socket.socket) -> dict[str, Any]:
    """Reads one message of `_send`, and no byte beyond it.

    Raises:
        OSError: The connection was closed or reset.
        ValueError: The bytes are not a message of `_send`.
    """
    size = int.from_bytes(await _read(sock, 4))
    if size > MAX_HELLO_BYTES:
        raise ValueError("not this protocol")
    try:
        message = json.loads(await _read(sock, size))
    except RecursionError as error:
        raise ValueError("too deep") from error
    if not isinstance(message, dict):
        raise ValueError("not an object")  # noqa: TRY004 - an error of the message, not of a type in the code
    return message


async def _read(sock: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    received = b""
    while len(received) < size:
        part = await loop.sock_recv(sock, size - len(received))
        if not part:
            raise ConnectionResetError("closed without a reply")
        received += part
    return received


def refuse_self_connection(sock: socket.socket) -> None:
    """Refuses a TCP self-connection, which happens if a dial of a free local port gets that same port as its source.

    Raises:
        ConnectionRefusedError: The socket is connected to itself.
    """
    if sock.getsockname() == sock.getpeername():
        raise ConnectionRefusedError("no process listens")


def _why(error: OSError | ValueError) -> str:
    number = getattr(error, "errno", None) or 0
    return os.strerror(number) if number > 0 else str(error)


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
