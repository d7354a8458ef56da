"""Requested and measured quantities of the links, over all cells of a network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from netem import LinkReading
from orchestrator.records.record import Record
from orchestrator.report.words import digits

_QUANTITIES = {  # as it is called, its unit
    "rtt_ms": ("RTT", "ms"),
    "rtt_p99_ms": ("99th percentile", "ms"),
    "rate_mbit": ("rate", "Mbit/s"),
    "delay_ms": ("delay", "ms"),
    "jitter_ms": ("jitter", "ms"),
    "loss_pct": ("loss", "%"),
}


@dataclass(frozen=True)
class LinkRow:
    """One ordered pair of parties on one network.

    Attributes:
        network: Name of its profile.
        src, dst: Roles.
        cells: Number of cells with a reading.
        asked, before, after: In words; medians with the least and the largest reading, empty if there is none.
    """

    network: str
    src: str
    dst: str
    cells: int
    asked: str
    before: str
    after: str


def link_rows(records: Sequence[Record]) -> list[LinkRow]:
    """A row for each pair of parties and network, in the order of the records."""
    groups: dict[tuple[str, str, str, str], list[LinkReading]] = {}
    for record in records:
        for link in record.links:
            place = (record.cell.network.name, link.src, link.dst, in_words([link.asked or {}]))
            groups.setdefault(place, []).append(link)
    return [
        LinkRow(
            *(network, src, dst, len(readings), asked),
            in_words([link.measured_before or {} for link in readings]),
            in_words([link.measured_after or {} for link in readings]),
        )
        for (network, src, dst, asked), readings in groups.items()
    ]


def in_words(readings: Sequence[Mapping[str, Any]]) -> str:
    """Known quantities of several readings; jitter and loss only where there are any."""
    known = {name: [float(r[name]) for r in readings if r.get(name) is not None] for name in _QUANTITIES}
    return ", ".join(
        f"{label} {_spread(known[name])} {unit}"
        for name, (label, unit) in _QUANTITIES.items()
        if known[name] and (any(known[name]) or name not in ("jitter_ms", "loss_pct"))
    )


def _spread(values: Sequence[float]) -> str:
    least, middle, largest = (digits(value) for value in (min(values), median(values), max(values)))
    return middle if least == largest else f"{middle} ({least} to {largest})"
