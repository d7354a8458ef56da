"""Deadlines, and the user's wish to stop."""

import threading
import time


class Interrupted(Exception):  # noqa: N818 - an event of the user, not an error
    """The user has requested a stop."""


class Overdue(Exception):  # noqa: N818 - TimeoutError is taken
    """The time is up."""


class Deadline:
    """A deadline and the user's wish to stop, checked together in every wait.

    Args:
        seconds: Time from now until `check` raises `Overdue`.
        stop: Set when the user requests a stop; `check` then raises `Interrupted`.
    """

    def __init__(self, seconds: float, stop: threading.Event) -> None:
        self.seconds = seconds
        self._stop = stop
        self._until = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until the deadline, never negative."""
        return max(0.0, self._until - time.monotonic())

    def check(self) -> None:
        """Raise `Interrupted` or `Overdue` if the wait is over."""
        if self._stop.is_set():
            raise Interrupted
        if not self.left:
            raise Overdue
