"""The `proxy` back end's process: TCP connections through lines with delay and rate, without any privilege.

Run as `python -m netem.proxy_process`. One line of JSON on standard input says what to carry:
`{"compensation_ms": 0.1, "lines": {"client>server": {"rate_mbit": 400, "delay_ms": 20}, ...},
"forwards": [{"src": "client", "dst": "server", "target": ["127.0.0.1", 7000]}, ...]}`.
One line of JSON on standard output gives the address of each forward, in order. The process ends with its standard
input, so it cannot outlive the one that started it.
"""

import json
import selectors
import socket
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netem.profile import Link
from netem.realtime import wake_on_time
from netem.stream import ProxyLine, Stream

_clock = time.perf_counter
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class _Forward:
    listener: socket.socket
    target: tuple[str, int]
    outward: ProxyLine
    inward: ProxyLine


@dataclass
class _Connection:
    """A proxied connection: what the dialler sends and what the dialled one sends."""

    outward: Stream
    inward: Stream

    @property
    def streams(self) -> tuple[Stream, Stream]:
        return self.outward, self.inward


class Proxy:
    """Listens for every forward and carries what comes.

    Args:
        lines: Each ordered pair `src>dst`.
        forwards: `src`, `dst` and `target` of each.
    """

    def __init__(self, lines: Mapping[str, ProxyLine], forwards: Sequence[Mapping[str, Any]]) -> None:
        # Not epoll: its time-out counts whole milliseconds.
        self._selector = selectors.SelectSelector()
        self._connections: list[_Connection] = []
        self._blocked: set[Stream] = set()
        self.addresses = []
        for given in forwards:
            listener = socket.create_server(("127.0.0.1", 0), backlog=64)
            listener.setblocking(False)
            pair = given["src"], given["dst"]
            forward = _Forward(listener, tuple(given["target"]), lines[">".join(pair)], lines[">".join(reversed(pair))])
            self._selector.register(listener, selectors.EVENT_READ, forward)
            self.addresses.append(listener.getsockname()[:2])

    def run(self, until_end_of: int) -> None:
        """Carry until a file descriptor ends."""
        self._selector.register(until_end_of, selectors.EVENT_READ, None)
        while True:
            for key, _ in self._wait():
                if key.data is None:
                    return
                if isinstance(key.data, _Forward):
                    self._accept(key.data)
            self._step()

    def _wait(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Sleep until a socket or a stream wants something; watch each socket only for what we could do with it."""
        now = _clock()
        wake = float("inf")
        for connection in self._connections:
            for stream, other in (connection.streams, connection.streams[::-1]):
                wake = min(wake, stream.wake_at(now) if stream not in self._blocked else float("inf"))
                wanted = selectors.EVENT_READ if stream.may_read(now) else 0
                self._watch(stream.source, wanted | (selectors.EVENT_WRITE if other in self._blocked else 0))
        return self._selector.select(None if wake == float("inf") else max(0.0, wake - _clock()))

    def _watch(self, sock: socket.socket, events: int) -> None:
        key = self._selector.get_map().get(sock)
        if key is None and events:
            self._selector.register(sock, events, sock)
        elif key is not None and not events:
            self._selector.unregister(sock)
        elif key is not None and key.events != events:
            self._selector.modify(sock, events, sock)

    def _step(self) -> None:
        """Read and write what can be, on every connection."""
        for connection in list(self._connections):
            try:
                for stream in connection.streams:
                    if stream.may_read(_clock()):
                        stream.read()
                    blocked = stream.write(_clock())
                    (self._blocked.add if blocked else self._blocked.discard)(stream)
            except OSError:
                self._drop(connection, reset=True)
            else:
                if all(stream.finished for stream in connection.streams):
                    self._drop(connection, reset=False)

    def _accept(self, forward: _Forward) -> None:
        try:
            dialler, _ = forward.listener.accept()
        except OSError:
            return
        dialled = socket.socket()
        for sock in (dialler, dialled):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        dialled.connect_ex(forward.target)  # a refusal shows at the first read
        self._connections.append(
            _Connection(Stream(dialler, dialled, forward.outward), Stream(dialled, dialler, forward.inward))
        )

    def _drop(self, connection: _Connection, *, reset: bool) -> None:
        """Close both sides; a reset tells either that the other is gone, as its own kernel would have."""
        self._connections.remove(connection)
        for stream in connection.streams:
            self._blocked.discard(stream)
            self._watch(stream.source, 0)
            if reset:
                stream.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            stream.source.close()


def main() -> None:
    """Read what to carry, say where, and carry it until standard input ends."""
    given = json.loads(sys.stdin.readline())
    lines = {pair: ProxyLine(Link(**link), given["compensation_ms"]) for pair, link in given["lines"].items()}
    proxy = Proxy(lines, given["forwards"])
    scheduling = wake_on_time()
    sys.stdout.write(json.dumps({"addresses": proxy.addresses, "scheduling": scheduling}) + "\n")
    sys.stdout.flush()
    proxy.run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
