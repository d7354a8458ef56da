"""Compares measured with requested values of a link, within a tolerance."""

from dataclasses import asdict, dataclass
from typing import Any

from netem.prober import Measured
from netem.profile import Link, NetworkProfile


@dataclass(frozen=True)
class Tolerance:
    """Allowed deviations of a measured link.

    Attributes:
        rtt_ms: Allowed deviation of the round-trip time in milliseconds,
        rtt_pct: Or in percent, whichever is larger.
        rate_pct: Allowed deviation of the throughput in percent.
    """

    rtt_ms: float = 0.3
    rtt_pct: float = 10.0
    rate_pct: float = 10.0


@dataclass(frozen=True)
class LinkReading:
    """Requested and measured values of one ordered pair; the record of a cell holds it as it is.

    Attributes:
        src: The sending host, by name.
        dst: The receiving host.
        asked: Requested values of the link and `rtt_ms`; None if the pair is not shaped.
        measured_before: Fields of `Measured`; None if the link was not measured.
        measured_after: The same, after the work.
    """

    src: str
    dst: str
    asked: dict[str, Any] | None = None
    measured_before: dict[str, Any] | None = None
    measured_after: dict[str, Any] | None = None


def asked(profile: NetworkProfile, src: str, dst: str) -> dict[str, Any] | None:
    """The requested values of one direction, as plain values; None if neither direction is shaped."""
    link = profile.link(src, dst)
    if not link.shaped and not profile.link(dst, src).shaped:
        return None
    return {**asdict(link), "rtt_ms": profile.rtt_ms(src, dst)}


def deviations(
    profile: NetworkProfile, src: str, dst: str, measured: Measured, tolerance: Tolerance | None = None
) -> tuple[str, ...]:
    """The deviations of a link, as texts; empty if it is within the tolerance.

    Loss and jitter reduce the throughput of TCP, so with either only the upper bound of the rate is checked.
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
