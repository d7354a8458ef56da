"""One direction of a proxied TCP connection: bytes enter when they are read and leave when they are due."""

import socket
import time
from collections import deque

from netem.line import Line
from netem.profile import Link

_clock = time.perf_counter

_CHUNK_S = 0.0005
_MIN_CHUNK, _MAX_CHUNK = 4 << 10, 256 << 10
# How far ahead of the wire to read, so that the wire never idles while the process wakes up.
_AHEAD_S = 0.005
_BASE_WINDOW = 32 << 20


class ProxyLine(Line):
    """A line that carries a byte stream in chunks, with bounds that follow from its rate and delay.

    Attributes:
        chunk: Bytes per read: half a millisecond at the rate of the link, since a chunk leaves as a whole.
        window: Maximum number of bytes to hold for one direction of one connection.
    """

    __slots__ = ("_ahead", "chunk", "window")

    def __init__(self, link: Link, compensation_ms: float = 0.0) -> None:
        super().__init__(link, compensation_ms)
        bytes_per_second = link.rate_mbit * 1e6 / 8 if link.rate_mbit else 0.0
        in_chunk = int(bytes_per_second * _CHUNK_S) if link.rate_mbit else _MAX_CHUNK
        self.chunk = min(max(in_chunk, _MIN_CHUNK), _MAX_CHUNK)
        self.window = _BASE_WINDOW + int(2 * bytes_per_second * link.delay_ms / 1e3)
        self._ahead = link.delay_ms / 1e3 + _AHEAD_S

    def open_at(self, now: float) -> float:
        """Time at which the line accepts more bytes, in seconds on the clock; at most `now` if it does immediately."""
        return now + self.backlog(now) - self._ahead


class Stream:
    """Bytes in flight from one socket to another.

    Args:
        source: Non-blocking socket to read.
        sink: Non-blocking socket to write.
        line: Shared by all streams of the same ordered pair of hosts.
    """

    __slots__ = ("_held", "_queue", "ended", "finished", "line", "sink", "source")

    def __init__(self, source: socket.socket, sink: socket.socket, line: ProxyLine) -> None:
        self.source = source
        self.sink = sink
        self.line = line
        self.ended = False
        self.finished = False
        self._queue: deque[tuple[float, memoryview]] = deque()
        self._held = 0

    def may_read(self, now: float) -> bool:
        """Whether more bytes may enter now."""
        return not self.ended and self._held < self.line.window and self.line.open_at(now) <= now

    def read(self) -> None:
        """Read one chunk, or the end of the stream.

        Raises:
            OSError: The connection is broken.
        """
        try:
            data = self.source.recv(self.line.chunk)
        except BlockingIOError:
            return
        if not data:
            self.ended = True
        # The line of a stream has no loss, so `due` never returns None. The end gets a due time too, so that jitter
        # cannot move it before its data.
        self._queue.append((self.line.due(len(data)) or 0.0, memoryview(data)))
        self._held += len(data)

    def write(self, now: float) -> bool:
        """Write all bytes that are due.

        Returns:
            Whether the sink accepts no more bytes for now.

        Raises:
            OSError: The connection is broken.
        """
        while self._queue and self._queue[0][0] <= now:
            due, data = self._queue[0]
            if not data:
                self._queue.popleft()
                self.sink.shutdown(socket.SHUT_WR)
                self.finished = True
                continue
            try:
                sent = self.sink.send(data)
            except BlockingIOError:
                return True
            self._held -= sent
            if sent < len(data):
                self._queue[0] = (due, data[sent:])
            else:
                self._queue.popleft()
        return False

    def wake_at(self, now: float) -> float:
        """Time of the next action of this stream that depends on the clock and not on its sockets."""
        next_due = self._queue[0][0] if self._queue else float("inf")
        if self.ended or self._held >= self.line.window:
            return next_due
        opens = self.line.open_at(now)
        return min(next_due, opens) if opens > now else next_due
