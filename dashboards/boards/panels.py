"""The four kinds of panel that the boards use, each with everything that a panel must have."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from grafana_foundation_sdk.builders import bargauge, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders.common import (
    GraphThresholdsStyleConfig,
    StackingConfig,
    TableSortByFieldState,
    VizTextDisplayOptions,
)
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BarGaugeSizing,
    BarGaugeValueMode,
    BigValueColorMode,
    BigValueGraphMode,
    BigValueJustifyMode,
    BigValueTextMode,
    FieldTextAlignment,
    GraphThresholdsStyleMode,
    LineInterpolation,
    StackingMode,
    TableAutoCellOptions,
    TableCellHeight,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import DataTransformerConfig, DynamicConfigValue
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from dashboards.boards import look
from dashboards.boards.queries import Query
from dashboards.boards.variables import SOURCE

_BAR_PIXELS = (16, 56)

Panel: TypeAlias = timeseries.Panel | stat.Panel | bargauge.Panel | table.Panel
_Kind = TypeVar("_Kind", timeseries.Panel, stat.Panel, bargauge.Panel, table.Panel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What every panel says about itself.

    Attributes:
        title: Shown above it.
        question: What it answers, then how to read it; shown when one points at the title's mark.
        unit: Grafana's id of the unit.
        queries: Where the numbers come from.
        limits: Values from which on the colour changes; none where a quantity has no limit.
        lowest: Where the scale begins, if not at the smallest value.
        highest: Where the scale ends, if not at the largest value.
        empty: What is shown while there are no data.
        width: In columns of 24.
        height: In rows of 30 pixels.
    """

    title: str
    question: str
    unit: str
    queries: Sequence[Query]
    limits: Sequence[look.Limit] = ()
    lowest: float | None = None
    highest: float | None = None
    empty: str = "No data yet"
    width: int = 12
    height: int = 8


def graph(facts: Facts, *, stacked: bool = False, steps: bool = False, legend_beside: bool = False) -> timeseries.Panel:
    """Values over time.

    Args:
        facts: What it says about itself.
        stacked: Areas on top of each other: for parts of a whole.
        steps: Keep a value until the next one: for states and counts.
        legend_beside: For many series.
    """
    panel = _dressed(timeseries.Panel(), facts, base=look.GOOD)
    panel.color_scheme(look.by_order()).tooltip(look.tooltip()).legend(look.legend(beside=legend_beside))
    panel.line_width(1).fill_opacity(70 if stacked else 8).show_points(VisibilityMode.NEVER)
    panel.line_interpolation(LineInterpolation.STEP_AFTER if steps else LineInterpolation.LINEAR)
    if stacked:
        panel.stacking(StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if facts.limits:
        panel.thresholds_style(GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    for party, color in look.PARTY_COLORS.items():
        panel.override_by_name(party, look.fixed(color))
    return panel


def number(facts: Facts, *, base: str = look.NEUTRAL, words: Sequence[tuple[str, str]] = ()) -> stat.Panel:
    """The newest value, large, or one for each series.

    Args:
        facts: What it says about itself.
        base: Colour below all limits.
        words: Text and colour for the values 0, 1, 2 and so on, if they stand for states.
    """
    panel = _dressed(stat.Panel(), facts, base=base)
    panel.color_scheme(look.by_threshold()).reduce_options(look.last()).orientation(VizOrientation.AUTO)
    panel.graph_mode(BigValueGraphMode.NONE if words else BigValueGraphMode.AREA)
    panel.color_mode(BigValueColorMode.VALUE).justify_mode(BigValueJustifyMode.AUTO)
    panel.text_mode(BigValueTextMode.AUTO)
    if words:
        panel.mappings(look.words(words)).text(VizTextDisplayOptions().value_size(24))
    return panel


def bars(facts: Facts, *, base: str = look.NEUTRAL) -> bargauge.Panel:
    """A bar for each series, its newest value beside it; for comparing."""
    panel = _dressed(bargauge.Panel(), facts, base=base)
    panel.color_scheme(look.by_threshold()).reduce_options(look.last()).orientation(VizOrientation.HORIZONTAL)
    panel.display_mode(BarGaugeDisplayMode.BASIC).value_mode(BarGaugeValueMode.COLOR).show_unfilled(True)
    panel.sizing(BarGaugeSizing.MANUAL).min_viz_height(_BAR_PIXELS[0]).max_viz_height(_BAR_PIXELS[1])
    return panel


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        field: The label that it shows; for a value, `Value #A` of the first query and so on.
        title: Its heading.
        unit: Grafana's id of its unit, if it is not the panel's.
        width: In pixels; 0 for what is left over.
    """

    field: str
    title: str
    unit: str = ""
    width: int = 0

    def overrides(self) -> Iterator[DynamicConfigValue]:
        """What makes this column differ from the others."""
        if self.unit:
            yield DynamicConfigValue(id_val="unit", value=self.unit)
        if self.width:
            yield DynamicConfigValue(id_val="custom.width", value=self.width)


def rows(facts: Facts, columns: Sequence[Column], *, newest_first: str = "") -> table.Panel:
    """A row for each set of labels; the queries are joined by the labels that they share.

    Args:
        facts: What it says about itself.
        columns: What is shown, from left to right; nothing else is.
        newest_first: Title of the column to sort by, largest first.
    """
    panel = _dressed(table.Panel(), facts, base="text", as_table=True)
    panel.color_scheme(look.by_threshold()).show_header(True).cell_height(TableCellHeight.SM)
    panel.align(FieldTextAlignment.AUTO).cell_options(TableAutoCellOptions()).inspect(False)
    panel.with_transformation(DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(DataTransformerConfig(id_val="organize", options=_order(columns)))
    if newest_first:
        panel.sort_by([TableSortByFieldState().display_name(newest_first).desc(True)])
    for column in columns:
        panel.override_by_name(column.title, list(column.overrides()))
    return panel


def _order(columns: Sequence[Column]) -> dict[str, Any]:
    return {
        "indexByName": {column.field: place for place, column in enumerate(columns)},
        "renameByName": {column.field: column.title for column in columns},
        "includeByName": {column.field: True for column in columns},
    }


def _dressed(panel: _Kind, facts: Facts, *, base: str, as_table: bool = False) -> _Kind:
    panel.title(facts.title).description(facts.question).datasource(SOURCE).unit(facts.unit).no_value(facts.empty)
    panel.thresholds(look.thresholds(facts.limits, base)).span(facts.width).height(facts.height)
    if facts.lowest is not None:
        panel.min(facts.lowest)
    if facts.highest is not None:
        panel.max(facts.highest)
    for place, query in enumerate(facts.queries):
        target = prometheus.Dataquery().expr(query.expr).ref_id("ABCDEFGH"[place]).legend_format(query.legend)
        if as_table:
            target.format(PromQueryFormat.TABLE)
        panel.with_target(target.instant() if query.instant or as_table else target.range())
    return panel
