"""Accounts for background threads, in parallel with the thread whose time a stage meter divides."""

from typing import TYPE_CHECKING

from parties.metering.readings import Counts

if TYPE_CHECKING:
    from parties.metering.meter import StageMeter


class BackgroundAccount:
    """Counts bytes and messages on one stage, but no time, since no thread waits for a background thread.

    Args:
        meter: The meter of the party.
        current: The stage to count on, independent of the current stage of the meter.
    """

    def __init__(self, meter: "StageMeter", current: str) -> None:
        self.current = current
        self._meter = meter

    def begin_call(self, peer: str) -> None:
        """See `StageMeter.begin_call`."""

    def count(self, peer: str, *, sent: int = 0, received: int = 0, messages: int = 0, rounds: float = 0.0) -> None:
        """See `StageMeter.count`."""
        counts = Counts(sent_bytes=sent, received_bytes=received, messages=messages, rounds=rounds)
        self._meter.count_background(self.current, peer, counts)
