"""Figures of a cell's saved time series: the panels of the live page and the dashboards."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from orchestrator.records.record import Record
from orchestrator.records.timeline import Sample, load
from orchestrator.report.figures import COLOURS, LINES, STYLE

MOST_CELLS = 40
"""Number of cells that are drawn; the series of all are in the run's folder."""

_MEGABIT = 1e6 / 8  # bytes
_MOST_POINTS = 120
_MOST_STAGES = 5
_HATCHES = ("", "///", "", "\\\\\\", "", "+++")
_GREYS = ("#4878a8", "#f0c8a0", "#ffffff", "#b8dcc8", "#d8c0dc", "#e4e4e4")
_ROLES = ("client", "server", "dealer", "referee")
_IDLE = "bench.idle"

Line = tuple[str, Sequence[tuple[float, float | None]]]


def draw_timelines(run_dir: Path, records: Sequence[Record]) -> list[tuple[Record, Figure]]:
    """A figure for each cell that has a time series: for `MOST_CELLS` of them, those that failed first."""
    drawn: list[tuple[Record, Figure]] = []
    for record in sorted(records, key=lambda record: record.status.measured):
        if len(drawn) < MOST_CELLS and len(samples := load(run_dir, record.id)) > 2:
            drawn.append((record, figure(_thinned(samples))))
    return drawn


def figure(samples: Sequence[Sample]) -> Figure:
    """Six panels over the seconds of a cell: tokens, stages, blocked time, links, memory and CPU."""
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(10.9, 5.2), layout="constrained")
        (token, stages, blocked), (links, memory, cpu) = drawing.subplots(2, 3, sharex=True)
        _lines(token, "Tokens", "decoded", [_values(samples, role, "tokens", 1) for role in ("client", "referee")])
        _areas(stages, samples)
        waits = [_rate(samples, role, partial(_reading, role=role, key="blocked_seconds")) for role in _ROLES[:3]]
        _lines(blocked, "Blocked, waiting for a peer", "share of time", waits)
        _lines(links, "Sent", "Mbit/s", _pairs(samples))
        _lines(memory, "Resident memory", "MB", [_values(samples, role, "rss_bytes", 1e6) for role in _ROLES])
        cores = [_rate(samples, role, partial(_reading, role=role, key="cpu_seconds")) for role in _ROLES]
        _lines(cpu, "CPU", "busy cores", cores)
        for axes in (links, memory, cpu):
            axes.set_xlabel("seconds since the cell began")
    return drawing


def _thinned(samples: Sequence[Sample]) -> list[Sample]:
    return list(samples[:: 1 + len(samples) // _MOST_POINTS])


def _reading(sample: Sample, role: str, key: str) -> float | None:
    value: float | None = sample["parties"].get(role, {}).get(key)
    return value


def _sent(sample: Sample, pair: str) -> float | None:
    sent: float | None = sample["pairs"].get(pair)
    return sent


def _spent(sample: Sample, names: Sequence[str]) -> float:
    """Seconds in some stages."""
    return float(sum(sample["stages"].get(name, (0.0,))[0] for name in names))


def _values(samples: Sequence[Sample], role: str, key: str, unit: float) -> Line:
    points = [(s["t"], _reading(s, role, key)) for s in samples]
    return role, [(t, None if value is None else value / unit) for t, value in points]


def _rate(samples: Sequence[Sample], name: str, of: Callable[[Sample], float | None], unit: float = 1.0) -> Line:
    """Rate of growth of an amount before each sample; None where a party sent no progress."""
    points: list[tuple[float, float | None]] = []
    for before, now in pairwise(samples):
        first, last = of(before), of(now)
        grown = None if first is None or last is None else max(0.0, last - first) / (now["t"] - before["t"])
        points.append((now["t"], None if grown is None else grown / unit))
    return name, points


def _pairs(samples: Sequence[Sample]) -> list[Line]:
    pairs = [pair for pair, sent in samples[-1]["pairs"].items() if sent and "referee" not in pair]
    return [_rate(samples, pair.replace(">", " to "), partial(_sent, pair=pair), _MEGABIT) for pair in pairs]


def _lines(axes: Axes, title: str, unit: str, lines: Sequence[Line]) -> None:
    for index, (name, points) in enumerate(lines):
        if not any(value for _, value in points):
            continue
        style: dict[str, Any] = {"color": COLOURS[index % len(COLOURS)], "linestyle": LINES[index % len(LINES)]}
        values = [float("nan") if value is None else value for _, value in points]
        axes.plot([t for t, _ in points], values, label=name, linewidth=1.4, **style)
    axes.set_title(title)
    axes.set_ylabel(unit)
    axes.set_ylim(bottom=0)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, framealpha=0.85, loc="best")


def _areas(axes: Axes, samples: Sequence[Sample]) -> None:
    """Stages by their share of time: the largest by name, the rest together."""
    spent = {name: amounts[0] for name, amounts in samples[-1]["stages"].items() if name != _IDLE}
    names = sorted(spent, key=lambda name: -spent[name])[:_MOST_STAGES]
    layers = [_rate(samples, name, partial(_spent, names=(name,))) for name in names]
    if rest := spent.keys() - names:
        layers.append(_rate(samples, "others", partial(_spent, names=tuple(rest))))
    if layers:
        times = [t for t, _ in layers[0][1]]
        heights = [[value or 0.0 for _, value in points] for _, points in layers]
        drawn = axes.stackplot(times, heights, labels=[name for name, _ in layers], colors=_GREYS, linewidth=0.4)
        for area, hatch in zip(drawn, _HATCHES, strict=False):
            area.set(hatch=hatch, edgecolor="black")
        axes.legend(fontsize=7, framealpha=0.85, loc="lower right")
    axes.set_title("Stages on the clock of the client")
    axes.set_ylabel("share of time")
    axes.set_ylim(0, 1)
