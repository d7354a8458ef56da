"""The figure of when a policy pays: its time over that of the full cache, against the prompt's length."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from orchestrator.records.pays import Curve, Point
from orchestrator.report.figures import COLOURS, LINES, MARKERS, STYLE

_MOST_COLUMNS = 3


def draw_pays(curves: Sequence[Curve]) -> Figure:
    """One panel per network, one line per series; hollow points are predicted."""
    networks = list(dict.fromkeys(curve.network for curve in curves))
    names = list(dict.fromkeys(curve.series for curve in curves))
    columns = min(len(networks), _MOST_COLUMNS)
    lines = -(-len(networks) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.2 + 3.8 * columns, 3.4 * lines + 0.2 * len(names)), layout="constrained")
        grid = list(figure.subplots(lines, columns, squeeze=False, sharey=True).flat)
        for axes, network in zip(grid, networks, strict=False):
            for curve in curves:
                if curve.network == network:
                    _draw(axes, curve, names.index(curve.series))
            _frame(axes, network)
        for axes in grid[len(networks) :]:
            axes.set_visible(False)
        drawn = {str(line.get_label()): line for axes in figure.axes for line in axes.lines}
        figure.legend([drawn[name] for name in names], names, loc="outside lower left", ncols=2, frameon=False)
    return figure


def _draw(axes: Axes, curve: Curve, index: int) -> None:
    colour = COLOURS[index % len(COLOURS)]
    style: dict[str, Any] = {"color": colour, "linestyle": LINES[index % len(LINES)], "label": curve.series}
    axes.plot([point.seq_len for point in curve.points], [point.ratio for point in curve.points], **style)
    for measured, fill in ((True, colour), (False, "white")):
        points: list[Point] = [point for point in curve.points if point.measured == measured]
        axes.plot(
            [point.seq_len for point in points],
            [point.ratio for point in points],
            color=colour,
            marker=MARKERS[index % len(MARKERS)],
            markersize=5,
            markerfacecolor=fill,
            linestyle="none",
        )


def _frame(axes: Axes, network: str) -> None:
    axes.axhline(1.0, color="#555555", linewidth=1.0)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.tick_params(axis="x", labelrotation=45)
    axes.set_ylim(bottom=0)
    axes.set(xlabel="prompt length (tokens)", ylabel="time over the full cache's", title=network)
