"""Delivery times of packets on a link: the arithmetic that the user-space back ends share."""

import random
import time

from netem.profile import Link

_clock = time.perf_counter
_gauss = random.gauss
_uniform = random.random


class Line:
    """One direction of a link, as netem with a rate models it.

    A packet of n bytes that enters at time t leaves at `max(t + delay, previous) + 8 n / rate`: it waits for the
    previous packet, then for its own transmission time, and never overtakes (kernel commit 7bc0f28c7a0c, "netem: rate
    extension").

    Args:
        link: Requested values.
        compensation_ms: One-way delay of the carrier itself, measured beforehand; subtracted from the requested delay.
    """

    __slots__ = ("_delay", "_jitter", "_last", "_loss", "_seconds_per_byte", "bytes", "lost")

    def __init__(self, link: Link, compensation_ms: float = 0.0) -> None:
        self._delay = max(0.0, link.delay_ms - compensation_ms) / 1e3
        self._jitter = link.jitter_ms / 1e3
        self._loss = link.loss_pct / 100
        self._seconds_per_byte = 8 / (link.rate_mbit * 1e6) if link.rate_mbit else 0.0
        self._last = 0.0
        self.bytes = 0
        self.lost = 0

    def due(self, size: int, now: float | None = None) -> float | None:
        """The time at which a packet that enters now leaves the line.

        Args:
            size: Bytes on the wire, with all headers.
            now: Seconds on the clock `time.perf_counter`; the current time if omitted.

        Returns:
            Seconds on the same clock, or None if the packet is lost.
        """
        if self._loss and _uniform() < self._loss:
            self.lost += 1
            return None
        now = _clock() if now is None else now
        delay = self._delay
        if self._jitter:
            delay = max(0.0, delay + _gauss(0.0, self._jitter))
        self._last = max(now + delay, self._last) + size * self._seconds_per_byte
        self.bytes += size
        return self._last

    def backlog(self, now: float | None = None) -> float:
        """Seconds until all packets that have entered have left."""
        return max(0.0, self._last - (_clock() if now is None else now))
