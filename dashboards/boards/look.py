"""Colours, thresholds and the words of states: the same on every board."""

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
"""A party has its colour wherever a series is named after it."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A value from which on a panel changes its colour."""

    at: float
    color: str = BAD


def thresholds(limits: Sequence[Limit], base: str) -> ThresholdsConfig:
    """Thresholds that begin with the colour `base`; a quantity that has no limit keeps it."""
    steps = [Threshold(color=base, value=None), *(Threshold(color=limit.color, value=limit.at) for limit in limits)]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def by_order() -> FieldColor:
    """The palette of Grafana, in the order of the series."""
    return FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC)


def by_threshold() -> FieldColor:
    """The colour of the threshold that the value has reached."""
    return FieldColor().mode(FieldColorModeId.THRESHOLDS)


def fixed(color: str) -> list[DynamicConfigValue]:
    """An override that gives a series one colour."""
    return [DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": color})]


def legend(*, beside: bool) -> VizLegendOptions:
    """Names under the curves, or beside them with the last value if there are many."""
    built = VizLegendOptions().show_legend(True)
    if beside:
        return built.display_mode(LegendDisplayMode.TABLE).placement(LegendPlacement.RIGHT).calcs(["lastNotNull"])
    return built.display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).calcs([])


def tooltip() -> VizTooltipOptions:
    """All series at the pointer, largest first."""
    return VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)


def last() -> ReduceDataOptions:
    """The newest value of each series."""
    return ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields("")


def words(texts: Sequence[tuple[str, str]]) -> list[ValueMapping]:
    """Words, with their colours, for the values 0, 1, 2 and so on."""
    options = {
        str(value): ValueMappingResult(text=text, color=color, index=value) for value, (text, color) in enumerate(texts)
    }
    return [ValueMap(options=options)]
