"""A non-blocking TCP or TLS connection that moves the bytes of frames in both directions, with a timeout."""

import contextlib
import select
import socket
from typing import TYPE_CHECKING

from xxhash import xxh3_64_intdigest

from parties.transport.frame import HEADER_BYTES, Damaged, FixedFrames, IncomingFrame

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
        self._socket = sock
        self._arrivals = select.poll()
        self._arrivals.register(self.fileno, select.POLLIN)

    def await_bytes(self) -> None:
        """Waits without a timeout until bytes have arrived, and leaves them unread.

        Raises:
            OSError: The connection is closed or reset.
        """
        events = self._ready(select.POLLIN | select.POLLRDHUP, None)
        if not events & select.POLLIN or not self._socket.recv(1, socket.MSG_PEEK):
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
                count = incoming.pull(self._socket)
                self.received_bytes += count
                moved += count
                if incoming.advance():
                    incoming = None
            if not moved:
                self._wait(sending=bool(outgoing), receiving=incoming is not None)

    def swap(self, frames: FixedFrames, expected: int) -> None:
        """Sends a frame and concurrently receives one of the same length.

        Args:
            frames: The frames.
            expected: Number of the frame to receive.

        Raises:
            Stalled, Damaged, OSError: As in `move`.
            Unexpected: The peer sends another frame.
        """
        sock, size, left, received = self._socket, frames.size, frames.size, 0
        while received < size or left:
            if left:
                try:
                    count = sock.sendmsg([frames.outgoing[size - left :]])
                except BlockingIOError:
                    count = 0
                left -= count
                self.sent_bytes += count
            if received == size:
                self._wait(sending=True, receiving=False)
                continue
            try:
                count = sock.recv_into(frames.incoming[received:])
            except BlockingIOError:
                if left:
                    self._wait(sending=True, receiving=True)
                elif not self._arrivals.poll(self.timeout_s * 1000):
                    raise Stalled from None
                continue
            if count == 0:
                raise ConnectionResetError
            self.received_bytes += count
            received += count
            if received - count < HEADER_BYTES <= received:
                frames.begun(expected)
        if xxh3_64_intdigest(frames.received) != frames.checksum:
            raise Damaged("payload")

    def close(self) -> None:
        """Closes the connection, which the peer detects immediately. Thread-safe."""
        with contextlib.suppress(OSError):  # the peer may have closed first
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _push(self, outgoing: list[memoryview]) -> int:
        """Sends as much of `outgoing` as the kernel accepts and removes it from there; returns the number of bytes."""
        try:
            count = self._socket.sendmsg(outgoing)
        except BlockingIOError:
            return 0
        self.sent_bytes += count
        left = count
        while outgoing and left >= len(outgoing[0]):
            left -= len(outgoing.pop(0))
        if left:
            outgoing[0] = outgoing[0][left:]
        return count

    def _raise_if_hung_up(self) -> None:
        """Checks before a one-way send, which would succeed into the kernel's buffer after the peer has closed."""
        if self._ready(select.POLLRDHUP, 0):
            raise ConnectionResetError

    def _wait(self, *, sending: bool, receiving: bool) -> None:
        # A peer that has hung up accepts no more bytes, but those that it sent before must still be read.
        events = (select.POLLOUT | select.POLLRDHUP if sending else 0) | (select.POLLIN if receiving else 0)
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
