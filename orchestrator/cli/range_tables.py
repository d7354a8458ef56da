"""The tables of `mpcache-bench calibrate`."""

import math
from collections.abc import Sequence

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from orchestrator.ranges.measure import Measured
from orchestrator.ranges.propose import Proposal
from parties.engines.bounds import Bound

_CAPTION = """Beyond its range a certain number gives wrong results, a rare one with a probability per token: wrong.
Retries: segments that are run again per token, about; the wider the bound of a rare number, the more."""


def by_number(proposals: Sequence[Proposal], engine: str) -> Table:
    """A row for each number: its extremes, the engine's range and the proposed bound."""
    columns = (
        "key",
        "number",
        "least",
        "largest",
        "at layer",
        f"range of {engine}",
        "kind",
        "bound",
        "wrong",
        "retries",
    )
    result = _table(columns)
    for each in proposals:
        ends = [f"{end:,.4g}" for end in (each.found.least, each.found.largest)]
        layer = "" if each.layer is None else str(each.layer)
        chances = [f"{chance:.1e}" if chance else "" for chance in (each.chance, each.retries)]
        row = (
            each.key,
            each.bound.number,
            *ends,
            layer,
            _span(each.bound),
            str(each.bound.kind),
            _limit(each),
            *chances,
        )
        result.add_row(*map(Text, row))
    result.caption = Text(_CAPTION)
    return result


def by_layer(measured: Measured) -> Table:
    """A row for each number and layer."""
    result = _table(("number", "layer", "least", "largest"))
    order = list(measured.bounds)
    for key, layer in sorted(
        measured.ranges, key=lambda place: (order.index(place[0]), -1 if place[1] is None else place[1])
    ):
        found = measured.ranges[key, layer]
        ends = [f"{end:,.4g}" for end in (found.least, found.largest)]
        result.add_row(*map(Text, (measured.bounds[key].number, "" if layer is None else str(layer), *ends)))
    return result


def _limit(each: Proposal) -> str:
    if each.refused:
        return "none fits"
    return "the engine's" if each.limit is None else f"{each.limit:,}"


def _span(bound: Bound) -> str:
    return f"{bound.low:,.6g} to {bound.high:,.6g}" if math.isfinite(bound.high) else "as the policy says"


def _table(columns: Sequence[str]) -> Table:
    result = Table(box=SIMPLE, caption_justify="left")
    for column in columns:
        text = column in ("key", "number", "kind") or column.startswith("range")
        result.add_column(column, justify="left" if text else "right", overflow="fold")
    return result
