"""A model of a token's time, fitted over networks: T = compute + waits per round x rounds x delay + bytes / rate.

Delay (one way), rate, bytes and rounds are measured; compute and the waits a round are fitted by least squares. A round
whose messages only wait for each other counts 1; one that also requests each round's randomness from a dealer, more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from netem import LinkReading, presets
from orchestrator.report.rows import Row

_LEAST_SPREAD = 2.0  # least ratio of delays that separates waiting from computing


@dataclass(frozen=True)
class Link:
    """A link as the model sees it: one-way delay and rate of the slower direction."""

    network: str
    delay_s: float
    bytes_per_second: float


@dataclass(frozen=True)
class Point:
    """One network: the measured and the fitted time."""

    network: str
    measured: float
    fitted: float


@dataclass(frozen=True)
class Fit:
    """The model of one series at one length.

    Attributes:
        series: Engine and policy.
        seq_len: Tokens of the prompt.
        compute: Seconds per token that no link changes.
        waits: One-way delays waited for in a round.
        points: The networks that were run.
        predicted: Seconds per token by preset that was not run; a prediction, not a measurement.
    """

    series: str
    seq_len: int
    compute: float
    waits: float
    points: tuple[Point, ...]
    predicted: tuple[tuple[str, float], ...]

    @property
    def worst(self) -> float:
        """Largest residual as a share of what was measured."""
        return max(abs(point.measured / point.fitted - 1) for point in self.points)


def fits(measured: Sequence[Row]) -> list[Fit]:
    """The model of every private series and length that ran on networks with different delays."""
    groups: dict[tuple[str, int], list[tuple[Row, Link]]] = {}
    for row in measured:
        if row.private and (link := link_of(row)) is not None:
            groups.setdefault((row.series, row.seq_len), []).append((row, link))
    return [_fit(*key, group) for key, group in groups.items() if _separable(group)]


def _separable(group: Sequence[tuple[Row, Link]]) -> bool:
    delays = [link.delay_s for _, link in group]
    return max(delays) >= _LEAST_SPREAD * min(delays)


def _fit(series: str, seq_len: int, group: Sequence[tuple[Row, Link]]) -> Fit:
    sending = np.array([_sending(row, link) for row, link in group])
    turns = np.array([row.rounds * link.delay_s for row, link in group])
    seconds = np.array([row.seconds for row, _ in group])
    # by relative error, so that a slow network does not drown a fast one
    columns = np.stack([np.ones_like(turns), turns], axis=1) / seconds[:, None]
    (compute, waits), *_ = np.linalg.lstsq(columns, (seconds - sending) / seconds)
    fitted = compute + waits * turns + sending
    points = tuple(Point(link.network, row.seconds, float(at)) for (row, link), at in zip(group, fitted, strict=True))
    row = group[-1][0]
    run = {link.network for _, link in group}
    predicted = tuple(
        (link.network, float(compute + waits * row.rounds * link.delay_s + _sending(row, link)))
        for link in _preset_links()
        if link.network not in run
    )
    return Fit(series, seq_len, float(compute), float(waits), points, predicted)


def _sending(row: Row, link: Link) -> float:
    return max(row.client_bytes, row.server_bytes) / link.bytes_per_second


def link_of(row: Row) -> Link | None:
    """The link between client and server as it was measured before the row's cells; None if it was not."""
    readings = [link for record in row.records for link in record.links if {link.src, link.dst} == {"client", "server"}]
    found = [_values(link) for link in readings if {"rtt_ms", "rate_mbit"} <= (link.measured_before or {}).keys()]
    if not found:
        return None
    delays, rates = zip(*found, strict=True)
    return Link(row.network, median(delays), min(rates))


def _values(link: LinkReading) -> tuple[float, float]:
    measured = link.measured_before or {}
    return float(measured["rtt_ms"]) / 2e3, float(measured["rate_mbit"]) * 1e6 / 8


def _preset_links() -> list[Link]:
    """The presets whose links are all alike."""
    alike = [profile for profile in presets() if profile.shaped and not profile.pairs]
    asked = [(profile.name, profile.link("client", "server")) for profile in alike]
    return [
        Link(name, link.delay_ms / 1e3, link.rate_mbit * 1e6 / 8) for name, link in asked if link.rate_mbit is not None
    ]
