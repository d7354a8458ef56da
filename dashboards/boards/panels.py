"""The four kinds of panel that the boards use, each with the options that every panel must set."""

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
class PanelOptions:
    """Options that all kinds of panel have in common.

    Attributes:
        title: Title of the panel.
        question: The question that the panel answers, then how to read it; shown as the description of the panel.
        unit: Grafana's id of the unit.
        queries: Queries for the data.
        limits: Thresholds at which the colour changes; none where a quantity has no limit.
        lowest: Lower end of the scale, if not the smallest value.
        highest: Upper end of the scale, if not the largest value.
        empty: Text shown while there is no data.
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


def graph(
    options: PanelOptions, *, stacked: bool = False, steps: bool = False, legend_right: bool = False
) -> timeseries.Panel:
    """Values over time.

    Args:
        options: Options of the panel.
        stacked: Stack the areas, for parts of a whole.
        steps: Keep each value until the next one, for states and counts.
        legend_right: Put the legend to the right of the graph, for many series.
    """
    panel = _configured(timeseries.Panel(), options, base=look.GOOD)
    panel.color_scheme(look.by_order()).tooltip(look.tooltip()).legend(look.legend(right=legend_right))
    panel.line_width(1).fill_opacity(70 if stacked else 8).show_points(VisibilityMode.NEVER)
    panel.line_interpolation(LineInterpolation.STEP_AFTER if steps else LineInterpolation.LINEAR)
    if stacked:
        panel.stacking(StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if options.limits:
        panel.thresholds_style(GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    for party, color in look.PARTY_COLORS.items():
        panel.override_by_name(party, look.fixed(color))
    return panel


def number(options: PanelOptions, *, base: str = look.NEUTRAL, words: Sequence[tuple[str, str]] = ()) -> stat.Panel:
    """The newest value of each series, as a large number.

    Args:
        options: Options of the panel.
        base: Colour below all limits.
        words: Text and colour of the values 0, 1, 2 and so on, if they are states.
    """
    panel = _configured(stat.Panel(), options, base=base)
    panel.color_scheme(look.by_threshold()).reduce_options(look.last()).orientation(VizOrientation.AUTO)
    panel.graph_mode(BigValueGraphMode.NONE if words else BigValueGraphMode.AREA)
    panel.color_mode(BigValueColorMode.VALUE).justify_mode(BigValueJustifyMode.AUTO)
    panel.text_mode(BigValueTextMode.AUTO)
    if words:
        panel.mappings(look.words(words)).text(VizTextDisplayOptions().value_size(24))
    return panel


def bars(options: PanelOptions, *, base: str = look.NEUTRAL) -> bargauge.Panel:
    """One bar per series, labelled with its newest value; for comparisons."""
    panel = _configured(bargauge.Panel(), options, base=base)
    panel.color_scheme(look.by_threshold()).reduce_options(look.last()).orientation(VizOrientation.HORIZONTAL)
    panel.display_mode(BarGaugeDisplayMode.BASIC).value_mode(BarGaugeValueMode.COLOR).show_unfilled(True)
    panel.sizing(BarGaugeSizing.MANUAL).min_viz_height(_BAR_PIXELS[0]).max_viz_height(_BAR_PIXELS[1])
    return panel


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        field: Label to show; for a value, `Value #A` of the first query and so on.
        title: Heading of the column.
        unit: Grafana's id of the unit, if it differs from the unit of the panel.
        width: Width in pixels; 0 takes the remaining width.
    """

    field: str
    title: str
    unit: str = ""
    width: int = 0

    def overrides(self) -> Iterator[DynamicConfigValue]:
        """Overrides of the panel's options for this column."""
        if self.unit:
            yield DynamicConfigValue(id_val="unit", value=self.unit)
        if self.width:
            yield DynamicConfigValue(id_val="custom.width", value=self.width)


def rows(options: PanelOptions, columns: Sequence[Column], *, newest_first: str = "") -> table.Panel:
    """One row per set of labels; the queries are joined on their common labels.

    Args:
        options: Options of the panel.
        columns: Columns from left to right; all other columns are hidden.
        newest_first: Title of the column to sort by, largest first.
    """
    panel = _configured(table.Panel(), options, base="text", as_table=True)
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


def _configured(panel: _Kind, options: PanelOptions, *, base: str, as_table: bool = False) -> _Kind:
    panel.title(options.title).description(options.question).datasource(SOURCE).unit(options.unit).no_value(
        options.empty
    )
    panel.thresholds(look.thresholds(options.limits, base)).span(options.width).height(options.height)
    if options.lowest is not None:
        panel.min(options.lowest)
    if options.highest is not None:
        panel.max(options.highest)
    for place, query in enumerate(options.queries):
        target = prometheus.Dataquery().expr(query.expr).ref_id("ABCDEFGH"[place]).legend_format(query.legend)
        if as_table:
            target.format(PromQueryFormat.TABLE)
        panel.with_target(target.instant() if query.instant or as_table else target.range())
    return panel
