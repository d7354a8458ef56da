"""Is a link what was asked for? Measured against asked, within a stated tolerance."""

from dataclasses import asdict, dataclass
from typing import Any

from netem.prober import Measured
from netem.profile import Link, NetworkProfile


@dataclass(frozen=True)
class Tolerance:
    """How far a measured link may be off.

    Attributes:
        rtt_ms: Round-trip time may be off by this many milliseconds,
        rtt_pct: or by this many percent, whichever is more.
        rate_pct: Throughput may be off by this many percent.
    """

    rtt_ms: float = 0.3
    rtt_pct: float = 10.0
    rate_pct: float = 10.0


@dataclass(frozen=True)
class LinkReport:
    """One ordered pair, as it goes into a record.

    Attributes:
        src: The sending host.
        dst: The receiving host.
        asked: The link's values and `rtt_ms`; None where nothing is asked.
        measured_before: Fields of `Measured`; None if it was not measured.
        measured_after: The same, after the work.
    """

    src: str
    dst: str
    asked: dict[str, Any] | None
    measured_before: dict[str, Any] | None = None
    measured_after: dict[str, Any] | None = None


def asked(profile: NetworkProfile, src: str, dst: str) -> dict[str, Any] | None:
    """What a profile asks of one direction, as plain values; None if of neither direction anything."""
    link = profile.link(src, dst)
    if not link.shaped and not profile.link(dst, src).shaped:
        return None
    return {**asdict(link), "rtt_ms": profile.rtt_ms(src, dst)}


def deviations(
    profile: NetworkProfile, src: str, dst: str, measured: Measured, tolerance: Tolerance | None = None
) -> tuple[str, ...]:
    """What is wrong with a link, in words; empty if it is what was asked for.

    The throughput of a link with loss or jitter is TCP's answer to those, so there only its upper bound is checked.
    """
    tolerance = tolerance or Tolerance()
    if asked(profile, src, dst) is None:
        return ()
    return (
        *_rtt_deviation(profile.rtt_ms(src, dst), measured, tolerance, f"{src}>{dst}"),
        *_rate_deviation(profile.link(src, dst), measured, tolerance, f"{src}>{dst}"),
    )


def _rtt_deviation(rtt_ms: float, measured: Measured, tolerance: Tolerance, pair: str) -> tuple[str, ...]:
    allowed = max(tolerance.rtt_ms, rtt_ms * tolerance.rtt_pct / 100)
    if abs(measured.rtt_ms - rtt_ms) <= allowed:
        return ()
    return (f"{pair}: RTT is {measured.rtt_ms:.2f} ms, asked for {rtt_ms:g} ms within {allowed:.2f} ms",)


def _rate_deviation(link: Link, measured: Measured, tolerance: Tolerance, pair: str) -> tuple[str, ...]:
    if link.rate_mbit is None:
        return ()
    off_pct = (measured.rate_mbit / link.rate_mbit - 1) * 100
    if off_pct <= tolerance.rate_pct and (link.loss_pct or link.jitter_ms or off_pct >= -tolerance.rate_pct):
        return ()
    wanted = f"asked for {link.rate_mbit:g} Mbit/s within {tolerance.rate_pct:g} %"
    return (f"{pair}: rate is {measured.rate_mbit:.1f} Mbit/s, {wanted}",)
