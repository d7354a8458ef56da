"""All four roles as real processes that run jobs through `Party`, with a recorder on every wire if wanted."""

import multiprocessing
import pickle
import secrets
import select
import socket
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, Self

import torch

from parties.transport.mesh import ROLES
from tests.helpers.together import PRELOAD, hasten_crypten
from tests.helpers.waiting import PATIENCE_S

Job = dict[str, Any]
Look = Callable[[], Any]


class Wire:
    """A recording relay in front of one listener: all that is sent to it, and all that it sends.

    Attributes:
        seen: Both directions, in the order of arrival.
        ways: The bytes from the dialler, and those from the listener.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target, self.seen = target, bytearray()
        self.ways = (bytearray(), bytearray())
        self._flips = [-1, -1]
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = self._server.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self.target)
            except OSError:  # the listener has ended, which the dialler notices
                near.close()
                continue
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._relay, args=(near, far), daemon=True).start()

    def _relay(self, near: socket.socket, far: socket.socket) -> None:
        with near, far:
            while True:
                for source in select.select([near, far], [], [])[0]:
                    try:
                        data = source.recv(1 << 16)
                    except ConnectionResetError:
                        return
                    if not data:
                        return
                    self.seen += data
                    way = int(source is far)
                    changed = self._flipped(way, data)
                    self.ways[way].extend(data)
                    try:
                        (far if source is near else near).sendall(changed)
                    except (BrokenPipeError, ConnectionResetError):
                        return

    def flip_after(self, count: int) -> None:
        """Flips a bit of the byte that follows the next `count` bytes, once in each direction."""
        self._flips = [len(way) + count for way in self.ways]

    def _flipped(self, way: int, data: bytes) -> bytes:
        place = self._flips[way] - len(self.ways[way])
        if not 0 <= place < len(data):
            return data
        changed = bytearray(data)
        changed[place] ^= 0x10
        return bytes(changed)

    def close(self) -> None:
        self._server.close()


class Four:
    """Client, server, dealer and referee, connected.

    Args:
        look: Called in each process during and after the decoding of a job; its return value is returned with
            the result.
        record: Puts a `Wire` between each pair; `wires` maps (dialler, listener) to it.
    """

    def __init__(self, look: Look | None = None, *, record: bool = False, timeout_s: float = PATIENCE_S) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        session = secrets.token_hex(8)
        self.pipes: dict[str, Connection] = {}
        self.processes = {}
        for role in ROLES:
            self.pipes[role], theirs = context.Pipe()
            process = context.Process(target=_serve, args=(role, session, timeout_s, look, theirs))
            process.start()
            theirs.close()
            self.processes[role] = process
        bound = {role: self.receive(role) for role in ROLES}
        self.wires: dict[tuple[str, str], Wire] = {}
        for role, pipe in self.pipes.items():
            dials = dict(bound)
            for peer in ROLES[: ROLES.index(role)] if record else ():
                self.wires[role, peer] = Wire(bound[peer])
                dials[peer] = self.wires[role, peer].address
            pipe.send_bytes(pickle.dumps(dials))

    def run(self, job: Job, roles: Sequence[str] = ROLES) -> dict[str, Any]:
        """Results of one job by role; an exception's type and text where a party failed."""
        for role in roles:
            self.send(role, job)
        return {role: self.receive(role) for role in roles}

    def send(self, role: str, job: Job) -> None:
        """Sends a job to one process, without waiting for the result."""
        self.pipes[role].send_bytes(pickle.dumps(job))

    def receive(self, role: str) -> Any:
        """The next message of a process; None if it has ended."""
        try:
            return pickle.loads(self.pipes[role].recv_bytes())  # noqa: S301 - our own child
        except (EOFError, ConnectionResetError):
            return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self.pipes.values():
            pipe.close()
        for process in self.processes.values():
            process.join(5)
            process.kill()
            process.join()
        for wire in self.wires.values():
            wire.close()


def _serve(role: str, session: str, timeout_s: float, look: Look | None, pipe: Connection) -> None:
    from parties.roles.party import Party

    torch.set_num_threads(1)
    hasten_crypten()
    party = Party(role, "127.0.0.1", session, timeout_s=timeout_s)
    pipe.send_bytes(pickle.dumps(party.address))
    party.connect(pickle.loads(pipe.recv_bytes()))  # noqa: S301 - our own parent
    try:
        while True:
            job = pickle.loads(pipe.recv_bytes())  # noqa: S301 - our own parent
            looks: list[Any] = []
            watcher = threading.Thread(target=_watch, args=(party, look, looks))
            watcher.start()
            try:
                result: Any = party.run(job).to_json()
            except Exception as error:  # noqa: BLE001 - the parent looks at it
                traceback.print_exc()
                result = {"error": type(error).__name__, "text": str(error)}
            watcher.join()
            looks += [look()] if look else []
            pipe.send_bytes(pickle.dumps((result, looks)))
    except EOFError:
        party.close()


def _watch(party: Any, look: Look | None, looks: list[Any]) -> None:
    """Looks once while the private part runs; the referee, who waits for it, is then in its check."""
    while look and party.state.name not in ("decode", "check"):
        time.sleep(0.01)
    looks += [look()] if look else []
