"""The process of the back end `proxy`: forwards TCP connections through lines with delay and rate, unprivileged.

Run as `python -m netem.proxy_process`. One line of JSON on standard input lists the lines and forwards:
`{"compensation_ms": 0.1, "lines": {"client>server": {"rate_mbit": 400, "delay_ms": 20}, ...},
"forwards": [{"src": "client", "dst": "server", "target": ["127.0.0.1", 7000]}, ...]}`.
One line of JSON on standard output gives the address of each forward, in order. The process exits at the end of its
standard input, so it cannot outlive its parent.
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
    """A proxied connection: one stream in each direction."""

    outward: Stream
    inward: Stream

    @property
    def streams(self) -> tuple[Stream, Stream]:
        return self.outward, self.inward


class Proxy:
    """Listens on the address of every forward and carries its connections.

    Args:
        lines: Lines by ordered pair `src>dst`.
        forwards: `src`, `dst` and `target` of each forward.
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
        """Carry connections until the end of a file descriptor."""
        self._selector.register(until_end_of, selectors.EVENT_READ, None)
        while True:
            for key, _ in self._wait():
                if key.data is None:
                    return
                if isinstance(key.data, _Forward):
                    self._accept(key.data)
            self._step()

    def _wait(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Sleep until a socket is ready or a stream is due; watch each socket only for events that can be handled."""
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
        """Read and write all that is possible, on every connection."""
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
        dialled.connect_ex(forward.target)  # a refused connection fails at the first read
        self._connections.append(
            _Connection(Stream(dialler, dialled, forward.outward), Stream(dialled, dialler, forward.inward))
        )

    def _drop(self, connection: _Connection, *, reset: bool) -> None:
        """Close both sides, with a TCP reset if the connection broke, as the kernel of the peer would have sent."""
        self._connections.remove(connection)
        for stream in connection.streams:
            self._blocked.discard(stream)
            self._watch(stream.source, 0)
            if reset:
                stream.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            stream.source.close()


def main() -> None:
    """Read the forwards, print their addresses, and carry connections until the end of standard input."""
    given = json.loads(sys.stdin.readline())
    lines = {pair: ProxyLine(Link(**link), given["compensation_ms"]) for pair, link in given["lines"].items()}
    proxy = Proxy(lines, given["forwards"])
    scheduling = wake_on_time()
    sys.stdout.write(json.dumps({"addresses": proxy.addresses, "scheduling": scheduling}) + "\n")
    sys.stdout.flush()
    proxy.run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
