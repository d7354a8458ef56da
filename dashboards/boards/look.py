"""Colours, thresholds, legends and names of states, the same on every board."""

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders.common import ReduceDataOptions, VizLegendOptions, VizTooltipOptions
from grafana_foundation_sdk.builders.dashboard import FieldColor, ThresholdsConfig
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, SortOrder, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import (
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)

GOOD, NEUTRAL, WARNING, BAD = "green", "blue", "orange", "red"

PARTY_COLORS = {"client": "blue", "server": "orange", "dealer": "green", "referee": "purple", "driver": "text"}
"""Colour of each party, on every panel with a series of that name."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A threshold at which a panel changes its colour."""

    at: float
    color: str = BAD


def thresholds(limits: Sequence[Limit], base: str) -> ThresholdsConfig:
    """Thresholds with the colour `base` below the first limit."""
    steps = [Threshold(color=base, value=None), *(Threshold(color=limit.color, value=limit.at) for limit in limits)]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def by_order() -> FieldColor:
    """Grafana's classic palette, in the order of the series."""
    return FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC)


def by_threshold() -> FieldColor:
    """The colour of the highest threshold that the value has reached."""
    return FieldColor().mode(FieldColorModeId.THRESHOLDS)


def fixed(color: str) -> list[DynamicConfigValue]:
    """An override that gives a series one colour."""
    return [DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": color})]


def legend(*, right: bool) -> VizLegendOptions:
    """Names below the graph, or for many series a table with the last values to the right of it."""
    built = VizLegendOptions().show_legend(True)
    if right:
        return built.display_mode(LegendDisplayMode.TABLE).placement(LegendPlacement.RIGHT).calcs(["lastNotNull"])
    return built.display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).calcs([])


def tooltip() -> VizTooltipOptions:
    """All series at the position of the pointer, largest first."""
    return VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)


def last() -> ReduceDataOptions:
    """The newest value of each series."""
    return ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields("")


def words(texts: Sequence[tuple[str, str]]) -> list[ValueMapping]:
    """Texts, with their colours, for the values 0, 1, 2 and so on."""
    options = {
        str(value): ValueMappingResult(text=text, color=color, index=value) for value, (text, color) in enumerate(texts)
    }
    return [ValueMap(options=options)]
