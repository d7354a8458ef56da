"""The dealer's way to one party: frames in order, in a thread of its own, no faster than the party grants."""

import threading
from collections import deque

from parties.errors import PartyError
from parties.metering.background import BackgroundAccount
from parties.transport.link import Link

QUEUED_BYTES = 64 << 20
"""How much of what a party has not granted yet the dealer holds ready."""

END = b""
"""The frame after which nothing comes, until the party asks for something new."""

WITHOUT_LIMIT = 1 << 62


class Stopped(Exception):  # noqa: N818 - an order, not a fault
    """What is being put is no longer wanted."""


class Courier:
    """Sends what is put, up to the bytes that the party has granted.

    A grant is a number of bytes since the cell began, so one that is late or sent twice does no harm. The party grants
    what it has room for; therefore a send that does not move is a dead peer and no slow one.

    Args:
        link: to the party; this object's thread is the only one that sends on it.
        account: where the bytes are counted.
    """

    def __init__(self, link: Link, account: BackgroundAccount) -> None:
        self._link, self._account = link, account
        self._frames: deque[bytes] = deque()
        self._queued = self._sent = self._granted = 0
        self._closed = self._sending = False
        self._failure: PartyError | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=f"courier-{link.peer}", daemon=True)
        self._thread.start()

    def put(self, frame: bytes, unwanted: threading.Event) -> None:
        """Queues a frame; waits while the queue is full.

        Raises:
            Stopped: `unwanted` was set, or the link has failed.
        """
        with self._changed:
            while self._queued >= QUEUED_BYTES and not unwanted.is_set() and self._failure is None:
                self._changed.wait(0.1)
            if unwanted.is_set() or self._failure is not None:
                raise Stopped
            self._frames.append(frame)
            self._queued += len(frame)
            self._changed.notify_all()

    @property
    def queued_bytes(self) -> int:
        """What waits to be sent."""
        return self._queued

    @property
    def idle(self) -> bool:
        """Whether all that was put is sent, and counted."""
        with self._changed:
            return not self._frames and not self._sending

    def grant(self, upto: int) -> None:
        """The party has room for so many bytes since the cell began."""
        with self._changed:
            self._granted = max(self._granted, upto)
            self._changed.notify_all()

    def drop(self) -> None:
        """Forgets what was not sent yet."""
        with self._changed:
            self._frames.clear()
            self._queued = 0
            self._changed.notify_all()

    def check(self) -> None:
        """Raises what stopped the thread, if something did."""
        if self._failure is not None:
            raise self._failure

    def finish(self) -> None:
        """Sends what is queued, and `END`: the party has granted or used all that comes before it.

        Raises:
            PartyError: the link's own errors.
        """
        with self._changed:
            self._frames.append(END)
            self._granted, self._closed = WITHOUT_LIMIT, True
            self._changed.notify_all()
        self._thread.join()
        self.check()

    def abandon(self) -> None:
        """Sends nothing more; does not wait for what is being sent."""
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
        return bool(self._frames) and self._sent < self._granted
