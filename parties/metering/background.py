"""Accounts for threads that work beside the one whose time a stage meter divides."""

from typing import TYPE_CHECKING

from parties.metering.readings import Counts

if TYPE_CHECKING:
    from parties.metering.meter import StageMeter


class BackgroundAccount:
    """Counts bytes and messages on one stage, and no time: nobody waits for a thread that works beside.

    Args:
        meter: The party's meter.
        current: The stage, whatever the meter's current one is.
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
