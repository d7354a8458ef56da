"""A non-blocking TCP or TLS connection that moves the bytes of frames in both directions, with a timeout."""

import contextlib
import select
import socket
from typing import TYPE_CHECKING

from parties.transport.frame import IncomingFrame

if TYPE_CHECKING:
    from parties.transport.tls import TlsSocket


class Stalled(Exception):  # noqa: N818 - named after the condition
    """No byte was sent or received for `timeout_s`."""


class Connection:
    """The byte stream of one link. At most one thread at a time may send and one may receive; the two may differ.

    Args:
        sock: A connected TCP socket, or a TLS session on one; the connection takes ownership.
        timeout_s: Seconds without a byte sent or received before `Stalled`.

    Attributes:
        timeout_s: As given.
        sent_bytes: Bytes sent so far.
        received_bytes: Bytes received so far.
        fileno: The file descriptor of the socket.
        socket: As given, non-blocking.
        arrivals: Polls for bytes to receive; for the thread that receives.
    """

    def __init__(self, sock: "socket.socket | TlsSocket", timeout_s: float) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, round(timeout_s / 2)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, round(timeout_s / 6)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        self.timeout_s = timeout_s
        self.sent_bytes = 0
        self.received_bytes = 0
        self.fileno = sock.fileno()
        self.socket = sock
        self.arrivals = select.poll()
        self.arrivals.register(self.fileno, select.POLLIN)
        self._hang_ups = select.poll()
        self._hang_ups.register(self.fileno, select.POLLRDHUP)

    def await_bytes(self) -> None:
        """Waits without a timeout until bytes have arrived, and leaves them unread.

        Raises:
            OSError: The connection is closed or reset.
        """
        events = self._ready(select.POLLIN | select.POLLRDHUP, None)
        if not events & select.POLLIN or not self.socket.recv(1, socket.MSG_PEEK):
            raise ConnectionResetError

    def move(self, outgoing: list[memoryview], incoming: IncomingFrame | None) -> None:
        """Sends the bytes of `outgoing`, if there are any, and concurrently receives `incoming`, if it is not None.

        Raises:
            Stalled: No byte moved for `timeout_s`.
            Damaged: The received frame does not match its checksums.
            OSError: The connection is closed or reset.
        """
        if outgoing and incoming is None:
            self._raise_if_hung_up()
        while outgoing or incoming is not None:
            moved = self._push(outgoing) if outgoing else 0
            if incoming is not None:
                count = incoming.pull(self.socket)
                self.received_bytes += count
                moved += count
                if incoming.advance():
                    incoming = None
            if not moved:
                self.wait(sending=bool(outgoing), receiving=incoming is not None)

    def close(self) -> None:
        """Closes the connection, which the peer detects immediately. Thread-safe."""
        with contextlib.suppress(OSError):  # the peer may have closed first
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def _push(self, outgoing: list[memoryview]) -> int:
        """Sends as much of `outgoing` as the kernel accepts and removes it from there; returns the number of bytes."""
        try:
            count = self.socket.sendmsg(outgoing)
        except BlockingIOError:
            return 0
        self.sent_bytes += count
        left = count
        while outgoing and left >= outgoing[0].nbytes:
            left -= outgoing.pop(0).nbytes
        if left:
            outgoing[0] = outgoing[0][left:]
        return count

    def _raise_if_hung_up(self) -> None:
        """Checks before a one-way send, which would succeed into the kernel's buffer after the peer has closed."""
        if self._hang_ups.poll(0):
            raise ConnectionResetError

    def wait(self, *, sending: bool, receiving: bool) -> None:
        """Waits until bytes can be sent, or have arrived.

        Raises:
            Stalled: Neither happened for `timeout_s`.
            ConnectionResetError: The peer has closed the connection, on which bytes are to be sent.
        """
        if not sending:
            if not self.arrivals.poll(self.timeout_s * 1000):
                raise Stalled
            return
        # A peer that has hung up accepts no more bytes, but those that it sent before must still be read.
        events = select.POLLOUT | select.POLLRDHUP | (select.POLLIN if receiving else 0)
        ready = self._ready(events, self.timeout_s)
        if not ready:
            raise Stalled
        if ready & select.POLLRDHUP:
            raise ConnectionResetError

    def _ready(self, events: int, timeout_s: float | None) -> int:
        """The events that are ready within `timeout_s` seconds; with its own poll, since two threads may wait."""
        poll = select.poll()
        poll.register(self.fileno, events)
        ready = poll.poll(None if timeout_s is None else timeout_s * 1000)
        return ready[0][1] if ready else 0
