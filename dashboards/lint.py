"""Rules that every board must keep, checked on the JSON that Grafana gets, not on the code that built it."""

import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any

from parties.metering.registry import BY_NAME

Board = dict[str, Any]

KINDS = ("timeseries", "stat", "bargauge", "table")
COLUMNS = 24
BUILT_IN = ("__rate_interval", "__range", "__interval")
FOREIGN = ("ray_",)
"""Prefixes of metrics that are served by other programs."""

_NAME = re.compile(r"\b((?:mpcbench|ray)[_:][a-z0-9_:]+)")
_VARIABLE = re.compile(r"\$\{?(\w+)")
_COUNTED_FROM = re.compile(r"(?:rate|increase|delta)\(\s*[^()]*\[([^\]]+)\]")


def faults(board: Board, recorded: frozenset[str] = frozenset()) -> list[str]:
    """The violations of the rules in a board, as texts; empty if there are none.

    Args:
        board: JSON of the board.
        recorded: Names of the recording rules.
    """
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    found = [*_of_board(board, panels)]
    for panel in panels:
        found += [f"panel {panel.get('title', panel['gridPos'])!r}: {fault}" for fault in _of_panel(panel)]
        for target in panel.get("targets", []):
            place = f"panel {panel.get('title')!r}, query {target.get('refId')}"
            known = {variable["name"] for variable in board["templating"]["list"]}
            found += [f"{place}: {fault}" for fault in _of_query(target["expr"], known, recorded)]
    return found


def _of_board(board: Board, panels: list[dict[str, Any]]) -> Iterator[str]:
    if board.get("editable"):
        yield "it is editable: changes made in Grafana would be lost at the next push"
    if board.get("timezone") != "browser":
        yield f"its time zone is {board.get('timezone')!r}, not the browser's"
    for link in board.get("links", []):
        if not (link["includeVars"] and link["keepTime"]):
            yield f"link {link['title']!r} loses the variables or the time"
    for one, other in combinations(board["panels"], 2):
        if _overlap(one["gridPos"], other["gridPos"]):
            yield f"panels {one['title']!r} and {other['title']!r} overlap"
    if len({panel.get("id") for panel in board["panels"]} - {None}) < len(board["panels"]):
        yield "the ids of the panels are missing or not unique"
    titles = [panel.get("title") for panel in panels]
    for title in {title for title in titles if titles.count(title) > 1}:
        yield f"two panels are called {title!r}"
    for variable in board["templating"]["list"]:
        if variable["type"] == "query" and variable["datasource"]["uid"] != "${source}":
            yield f"variable {variable['name']!r} has a data source of its own, not ${{source}}"


def _of_panel(panel: dict[str, Any]) -> Iterator[str]:
    defaults, grid = panel["fieldConfig"]["defaults"], panel["gridPos"]
    if panel["type"] not in KINDS:
        yield f"kind {panel['type']!r} is not one of {KINDS}"
    if not panel.get("title"):
        yield "it has no title"
    if "?" not in panel.get("description", ""):
        yield "its description does not begin with the question that it answers"
    if not defaults.get("unit"):
        yield "it has no unit"
    if not defaults.get("thresholds", {}).get("steps"):
        yield "it has no thresholds"
    if (panel.get("datasource") or {}).get("uid") != "${source}":
        yield "its data source is not the variable ${source}"
    if not panel.get("targets"):
        yield "it has no query"
    if grid["x"] + grid["w"] > COLUMNS:
        yield f"it ends at column {grid['x'] + grid['w']} of {COLUMNS}"


def _of_query(expr: str, known: set[str], recorded: frozenset[str]) -> Iterator[str]:
    for name in _NAME.findall(expr):
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        histogram = family in BY_NAME and BY_NAME[family].kind == "histogram"
        if not (name in BY_NAME or histogram or name in recorded or name.startswith(FOREIGN)):
            yield f"no exporter serves {name!r}"
    for variable in set(_VARIABLE.findall(expr)) - known - set(BUILT_IN):
        yield f"there is no variable ${variable}"
    for window in _COUNTED_FROM.findall(expr):
        if window not in ("$__rate_interval", "$__range"):
            yield f"a rate over [{window}]; use $__rate_interval, which follows zoom and scrape interval"
    if "run=" not in expr and not all(name.startswith(FOREIGN) for name in _NAME.findall(expr)):
        yield "it adds up runs: it has no run= matcher"


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )
