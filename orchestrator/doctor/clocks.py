"""How far each host's clock is off the driver's, from timed requests."""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from orchestrator.doctor.finding import Finding, fine, note, wrong

# Durations come from monotonic clocks. Wall time only dates records and samples, scraped once a second or less.
LIMIT_S = 1.0
_REQUESTS = 8


class Exchange(NamedTuple):
    """One request: when it was sent and answered by the driver's clock, and the time on the host's clock; seconds."""

    sent: float
    there: float
    received: float


class Offset(NamedTuple):
    """By how much a clock is ahead of the driver's, give or take the uncertainty; seconds."""

    seconds: float
    uncertainty: float


def offset(exchanges: Iterable[Exchange]) -> Offset:
    """The offset of a clock, from the exchange with the shortest round trip.

    The host looked at its clock at some moment between `sent` and `received` (Cristian, Distributed Computing 3, 1989):
    theta = there - (sent + received) / 2, off by at most (received - sent) / 2.
    """
    best = min(exchanges, key=lambda exchange: exchange.received - exchange.sent)
    return Offset(best.there - (best.sent + best.received) / 2, (best.received - best.sent) / 2)


def exchanges(now: Callable[[], float]) -> list[Exchange]:
    """Several timed requests.

    Args:
        now: Reads the host's clock.
    """
    return [Exchange(time.time(), now(), time.time()) for _ in range(_REQUESTS)]


def clock(host: str, found: Offset) -> Finding:
    """The row of one host."""
    text = f"{found.seconds * 1e3:+.1f} ms off the driver's, give or take {found.uncertainty * 1e3:.1f} ms"
    if abs(found.seconds) - found.uncertainty > LIMIT_S:
        fix = "synchronise both with NTP (`timedatectl set-ntp true`, or chrony)"
        return wrong("clock", host, text, fix)
    if found.uncertainty > LIMIT_S:
        return note("clock", host, f"{text}: the answer was too slow for more precision")
    return fine("clock", host, text)
