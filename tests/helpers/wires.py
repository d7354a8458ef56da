"""Real TCP connections and real processes for the tests of links, meshes and exporters."""

import os
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

import xxhash

from parties.metering.meter import StageMeter
from parties.transport.frame import header
from parties.transport.link import Link
from parties.transport.mesh import Address, Listener, Mesh, connect
from tests.helpers.waiting import PATIENCE_S

SESSION = "a-secret-session"


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    return near, far


@contextmanager
def linked(timeout_s: float = PATIENCE_S, **options: Any) -> Iterator[tuple[Link, Link, StageMeter, StageMeter]]:
    """The two ends of one connection: the client's link to the server, the server's to the client, their meters."""
    near, far = tcp_pair()
    meters = StageMeter(), StageMeter()
    client = Link(near, "server", meters[0], timeout_s, **options)
    server = Link(far, "client", meters[1], timeout_s, **options)
    try:
        yield client, server, *meters
    finally:
        client.close()
        server.close()


@contextmanager
def link_and_wire(timeout_s: float = PATIENCE_S, **options: Any) -> Iterator[tuple[Link, socket.socket, StageMeter]]:
    """The client's link to a server of which the test holds the bare socket."""
    near, far = tcp_pair()
    meter = StageMeter()
    link = Link(near, "server", meter, timeout_s, **options)
    far.settimeout(PATIENCE_S)
    try:
        yield link, far, meter
    finally:
        link.close()
        far.close()


def frame(number: int, payload: bytes) -> bytes:
    return header(payload, number) + payload


def announced(length: int, number: int = 0) -> bytes:
    """An undamaged header of a payload that does not follow."""
    fields = struct.pack("!QIQ", length, number, 0)
    return fields + struct.pack("!I", xxhash.xxh32_intdigest(fields))


def later(work: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Runs `work` in a thread; the result or the exception comes with the future."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work(*arguments))
        except BaseException as error:  # noqa: BLE001 - it is raised again where the result is asked for
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future


@contextmanager
def child(work: Callable[[], None]) -> Iterator[int]:
    """Runs `work` in a forked process, which is killed at the end; yields its id."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - the child must not run the parent's tests
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(0)
    try:
        yield pid
    finally:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@contextmanager
def listeners(*roles: str, host: str = "127.0.0.1") -> Iterator[tuple[dict[str, Listener], dict[str, Address]]]:
    """A bound listener for each role, and where to dial it."""
    bound = {role: Listener(host) for role in roles}
    try:
        yield bound, {role: listener.address for role, listener in bound.items()}
    finally:
        for listener in bound.values():
            listener.close()


def join(role: str, bound: dict[str, Listener], addresses: dict[str, Address], **changes: Any) -> Mesh:
    options = {"session": SESSION, "meter": StageMeter(), "timeout_s": PATIENCE_S, **changes}
    return connect(role, bound[role], addresses, **options)
