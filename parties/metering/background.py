"""Accounts for background threads, in parallel with the thread whose time a stage meter divides."""

from collections.abc import Callable

from parties.metering.readings import Counts


class BackgroundAccount:
    """Counts bytes and messages on one stage, but no time, since no thread waits for a background thread.

    Args:
        book: Adds counts with a peer to a stage of the party's meter (`StageMeter.count_background`).
        current: The stage to count on, independent of the current stage of the meter.
    """

    def __init__(self, book: Callable[[str, str, Counts], None], current: str) -> None:
        self.current = current
        self._book = book

    def begin_call(self, peer: str) -> None:
        """See `StageMeter.begin_call`."""

    def count(self, peer: str, *, sent: int = 0, received: int = 0, messages: int = 0, rounds: float = 0.0) -> None:
        """See `StageMeter.count`."""
        counts = Counts(sent_bytes=sent, received_bytes=received, messages=messages, rounds=rounds)
        self._book(self.current, peer, counts)
