"""The dealer's sender to one party: frames in order, in a thread of its own, within the party's credit."""

import threading
from collections import deque

from parties.errors import PartyError
from parties.metering.background import BackgroundAccount
from parties.transport.link import Link

QUEUED_BYTES = 64 << 20
"""Limit on the bytes that the dealer queues beyond a party's credit."""

END = b""
"""The last frame, until the party makes a new request."""

WITHOUT_LIMIT = 1 << 62


class Stopped(Exception):  # noqa: N818 - an order, not a fault
    """The frame being queued is no longer wanted."""


class Sender:
    """Sends queued frames, up to the party's credit.

    A credit is a number of bytes since the cell began, so a late or repeated one is harmless. The party gives credit
    only for free memory; therefore a send that does not proceed means a dead peer, not a slow one.

    Args:
        link: The link to the party; this object's thread is the only one that sends on it.
        account: Counts the bytes.
    """

    def __init__(self, link: Link, account: BackgroundAccount) -> None:
        self._link, self._account = link, account
        self._frames: deque[bytes] = deque()
        self._queued = self._sent = self._credit = 0
        self._closed = self._sending = False
        self._failure: PartyError | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=f"sender-{link.peer}", daemon=True)
        self._thread.start()

    def put(self, frame: bytes, unwanted: threading.Event) -> None:
        """Queues a frame; waits while the queue is full.

        Raises:
            Stopped: `unwanted` was set, the link failed, or the last frame is queued: the party reads no further.
        """
        with self._changed:
            while self._queued >= QUEUED_BYTES and not self._is_over(unwanted):
                self._changed.wait(0.1)
            if self._is_over(unwanted):
                raise Stopped
            self._frames.append(frame)
            self._queued += len(frame)
            self._changed.notify_all()

    def _is_over(self, unwanted: threading.Event) -> bool:
        return unwanted.is_set() or self._closed or self._failure is not None

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait to be sent."""
        return self._queued

    @property
    def idle(self) -> bool:
        """Whether every queued frame is sent and counted."""
        with self._changed:
            return not self._frames and not self._sending

    def credit(self, upto: int) -> None:
        """The party has room for so many bytes since the cell began."""
        with self._changed:
            self._credit = max(self._credit, upto)
            self._changed.notify_all()

    def drop(self) -> None:
        """Drops every frame not sent yet."""
        with self._changed:
            self._frames.clear()
            self._queued = 0
            self._changed.notify_all()

    def check(self) -> None:
        """Raises the error that stopped the thread, if one did."""
        if self._failure is not None:
            raise self._failure

    def finish(self) -> None:
        """Sends the queue and `END`; the party has given credit for, or used, everything before it.

        Raises:
            PartyError: The link's own errors.
        """
        with self._changed:
            self._frames.append(END)
            self._credit, self._closed = WITHOUT_LIMIT, True
            self._changed.notify_all()
        self._thread.join()
        self.check()

    def abandon(self) -> None:
        """Sends nothing more; does not wait for the frame under way."""
        with self._changed:
            self._frames.clear()
            self._closed = True
            self._changed.notify_all()

    def _work(self) -> None:
        try:
            while (frame := self._next()) is not None:
                self._link.send(frame, self._account)
                with self._changed:
                    self._sending = False
        except PartyError as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _next(self) -> bytes | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._may_send())
            if not self._may_send():
                return None
            frame = self._frames.popleft()
            self._queued -= len(frame)
            self._sent += len(frame)
            self._sending = True
            self._changed.notify_all()
            return frame

    def _may_send(self) -> bool:
        return bool(self._frames) and self._sent < self._credit
