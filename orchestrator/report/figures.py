"""The report's figures: readable in black and white, with markers, hatches and labels at the lines."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from orchestrator.report.fit import Link
from orchestrator.report.rows import Row, StageRow, stage_rows

STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "mpcache-bench",
    "text.parse_math": False,
}
# Okabe and Ito's colours, ordered so that neighbours also differ in lightness.
COLOURS = ("#0072B2", "#D55E00", "#000000", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":")
_MOST_STAGE_PANELS = 4
_WIDE = 10.0  # from here on a linear axis hides what differs among the small amounts
_BREAKDOWN_INCHES = 10.9


@dataclass(frozen=True)
class Panel:
    """One amount, drawn against the prompt's length.

    Attributes:
        title: Name of the amount, with its phase.
        unit: Label of the vertical axis.
        amount: Its value in a row.
        ends: Its least and largest value among the repeats of a row, if they are to be drawn.
    """

    title: str
    unit: str
    amount: Callable[[Row], float]
    ends: Callable[[Row], tuple[float, float]] | None = None


def _length(row: Row) -> float:
    return row.seq_len


def by_length(rows: Sequence[Row], panels: Sequence[Panel]) -> Figure:
    """Amounts against the prompt's length: one panel per amount and network, one line per series."""
    return _against(rows, panels, "prompt length (tokens)", _length)


def by_batch(rows: Sequence[Row], panels: Sequence[Panel]) -> Figure:
    """Amounts against the sequences that decode side by side: one panel per amount and network."""
    return _against(rows, panels, "batch (sequences)", lambda row: row.batch)


def _against(rows: Sequence[Row], panels: Sequence[Panel], axis: str, place: Callable[[Row], float]) -> Figure:
    networks = list(dict.fromkeys(row.network for row in rows))
    names = list(dict.fromkeys(row.series for row in rows))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(0.9 + 5.0 * len(panels), 3.2 * len(networks)), layout="constrained")
        grid = figure.subplots(len(networks), len(panels), squeeze=False)
        for line, network in zip(grid, networks, strict=True):
            here = [row for row in rows if row.network == network]
            for axes, panel in zip(line, panels, strict=True):
                _lines(axes, here, names, panel, place)
                ticks = sorted({place(row) for row in here})
                axes.set_xticks(ticks, [str(tick) for tick in ticks])
                wide = _wide([panel.amount(row) for row in here])
                if wide:
                    _logarithmic(axes)
                else:
                    axes.set_ylim(bottom=0)
                _labels(axes, here, names, panel, max(ticks), place)
                axes.set_title(f"{panel.title}, {network}" if len(networks) > 1 else panel.title)
                axes.set_ylabel(f"{panel.unit}, logarithmic" if wide else panel.unit)
                axes.set_xlabel(axis)
    return figure


def by_link(points: Sequence[tuple[Row, Link]], panel: Panel) -> Figure:
    """An amount against the measured round trip and against the measured rate, on logarithmic axes.

    Args:
        points: Rows of one length a series, each with the link that was measured for it.
        panel: The amount.
    """
    rows, links = [row for row, _ in points], {id(row): link for row, link in points}
    names = list(dict.fromkeys(row.series for row in rows))
    axis: tuple[tuple[str, Callable[[Link], float]], ...] = (
        ("round trip, measured (ms)", lambda link: 2e3 * link.delay_s),
        ("rate, measured (Mbit/s)", lambda link: 8e-6 * link.bytes_per_second),
    )
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(0.9 + 5.0 * len(axis), 3.6), layout="constrained")
        for axes, (label, at) in zip(figure.subplots(1, len(axis)), axis, strict=True):
            place = _placed(links, at)
            axes.set(xscale="log", xlabel=label, ylabel=panel.unit)
            _lines(axes, rows, names, panel, place)
            networks = dict.fromkeys(link.network for link in links.values())
            ticks = {name: median(at(link) for link in links.values() if link.network == name) for name in networks}
            axes.set_xticks(list(ticks.values()), [f"{_rounded(value)}\n{name}" for name, value in ticks.items()])
            _logarithmic(axes)
            axes.set_title(panel.title)
            _labels(axes, rows, names, panel, max(map(place, rows)), place)
    return figure


def _wide(amounts: Sequence[float]) -> bool:
    """Whether the least would lie on a linear axis' foot."""
    return min(amounts) > 0 and max(amounts) > _WIDE * min(amounts)


def _logarithmic(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.minorticks_off()


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _placed(links: dict[int, Link], at: Callable[[Link], float]) -> Callable[[Row], float]:
    return lambda row: at(links[id(row)])


def _lines(axes: Axes, rows: Sequence[Row], names: Sequence[str], panel: Panel, place: Callable[[Row], float]) -> None:
    for index, name in enumerate(names):
        own = sorted((row for row in rows if row.series == name), key=place)
        if not own:
            continue
        x, y = [place(row) for row in own], [panel.amount(row) for row in own]
        style: dict[str, Any] = {
            "color": COLOURS[index % len(COLOURS)],
            "marker": MARKERS[index % len(MARKERS)],
            "linestyle": LINES[index % len(LINES)],
        }
        if panel.ends is not None:
            reach = [panel.ends(row) for row in own]
            below = [at - low for at, (low, _) in zip(y, reach, strict=True)]
            above = [high - at for at, (_, high) in zip(y, reach, strict=True)]
            axes.errorbar(x, y, yerr=[below, above], capsize=3, markersize=5, **style)
        else:
            axes.plot(x, y, markersize=5, **style)
    axes.margins(x=0.08)


def _labels(
    axes: Axes,
    rows: Sequence[Row],
    names: Sequence[str],
    panel: Panel,
    right: float,
    place: Callable[[Row], float],
) -> None:
    """Names at the right ends of the lines, moved apart where they would overlap."""
    height, at = axes.transData + axes.transAxes.inverted(), -1.0
    ends = []
    for index, name in enumerate(names):
        if own := [row for row in rows if row.series == name]:
            last = max(own, key=place)
            _, y = height.transform((place(last), panel.amount(last)))
            ends.append((float(y), name, COLOURS[index % len(COLOURS)]))
    for y, name, colour in sorted(ends):
        at = max(y, at + 0.075)
        axes.annotate(
            name,
            (right, at),
            (8, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            color=colour,
            fontsize=8,
            va="center",
            annotation_clip=False,
        )


def breakdown(rows: Sequence[Row], kind: Literal["seconds", "bytes"]) -> Figure:
    """Stages of some rows side by side: seconds as compute and blocked, or bytes as online and offline."""
    shown = rows[:_MOST_STAGE_PANELS]
    stages = {row.series: {stage.stage: stage for stage in stage_rows(row)} for row in shown}
    names = max((list(own) for own in stages.values()), key=len, default=[])
    names += [name for own in stages.values() for name in own if name not in names]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(_BREAKDOWN_INCHES, 1.4 + 0.23 * len(names)), layout="constrained")
        grid = figure.subplots(1, len(shown), squeeze=False, sharey=True, sharex=True)[0]
        for axes, (series, own) in zip(grid, stages.items(), strict=True):
            _bars(axes, names, own, kind)
            axes.set_title(series)
        grid[0].invert_yaxis()  # shared by all panels: the first stage on top
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    return figure


def _bars(axes: Axes, names: Sequence[str], own: dict[str, StageRow], kind: str) -> None:
    nothing = StageRow("", "online", 0.0, 0.0, 0.0, 0.0)
    stages = [own.get(name, nothing) for name in names]
    if kind == "seconds":
        parts = [[s.compute_seconds for s in stages], [s.blocked_seconds for s in stages]]
        labels = ("computing", "blocked, waiting for a peer")
        axes.set_xlabel("client's seconds per token")
    else:
        parts = [[s.bytes / 1e6 * (s.phase == phase) for s in stages] for phase in ("online", "offline")]
        labels = ("online", "offline")
        axes.set_xlabel("MB per token, all parties")
    places = range(len(names))
    axes.barh(places, parts[0], color="#4878a8", edgecolor="black", linewidth=0.5, label=labels[0])
    axes.barh(
        places, parts[1], left=parts[0], color="white", edgecolor="black", linewidth=0.5, hatch="////", label=labels[1]
    )
    axes.set_yticks(places, names)
    axes.grid(visible=False, axis="y")


def as_svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element for a page that holds several: its ids start with `name`."""
    text = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    return re.sub(r'(url\(#|xlink:href="#)', rf"\g<1>{name}-", svg)


def as_png(figure: Figure) -> bytes:
    """The figure as a PNG."""
    data = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(data, format="png", dpi=130, metadata={"Software": None})
    return data.getvalue()
