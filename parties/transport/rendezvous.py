"""How parties meet: who dials whom, what a hello says, and who is let in."""

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
    """The time between knowing the addresses and having a connection with each peer."""

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
        """Dials and accepts side by side until everyone is here; closes whatever else has connected."""
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
        """What is known about each role that is not here."""
        everyone = (*self._to_dial, *self._expected)
        return {peer: self._trouble.get(peer, "no answer") for peer in everyone if peer not in self._joined}

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
        """Connects to one of the addresses of a peer, says hello and waits for its answer."""
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
        except OSError:  # it has left again
            return
        sock.setblocking(False)
        self._unidentified.add(sock)
        self._answering.add(asyncio.create_task(self._answer_hello(sock)))

    async def _answer_hello(self, sock: socket.socket) -> None:
        """Lets in the sender of a proper hello; a silent stranger keeps only its own task waiting."""
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
        """What is wrong with a hello; names no session, for a session is a secret."""
        role, session = hello.get("role"), str(hello.get("session"))
        if hello.get("version") != PROTOCOL_VERSION:
            return f"it speaks version {hello.get('version')!r:.20}, we speak {PROTOCOL_VERSION}; install one version"
        if not hmac.compare_digest(session.encode(errors="replace"), self._session.encode()):
            return "it is in another session"
        if hello.get("to") != self._role:
            return f"it meant to reach {hello.get('to')!r:.20}, this is {self._role}; check its addresses"
        if role not in self._expected:
            return f"no {role!r:.20} is expected to dial {self._role}"
        if role in self._joined:
            return f"a {role} is here already"
        return None


def _send(sock: socket.socket, message: dict[str, Any]) -> None:
    """Sends a length and JSON; the buffer of a new connection takes it at once."""
    text = json.dumps(message).encode()
    sock.sendall(len(text).to_bytes(4) + text)


async def _receive(sock: socket.socket) -> dict[str, Any]:
    """Reads what `_say` sent, and not a byte of what follows.

    Raises:
        OSError: The connection was closed or reset.
        ValueError: It is something else than `_say` sends.
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


def refuse_self_connection(sock: socket.socket) -> None:
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
