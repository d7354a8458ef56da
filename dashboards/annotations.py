"""Cells as annotated regions on the time axis of the boards."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from dashboards.grafana import Grafana
from dashboards.names import TAG

Counts = dict[Literal["created", "updated", "unchanged"], int]


@dataclass(frozen=True, slots=True)
class Region:
    """One cell on the time axis, identified by its start and the tag of the cell.

    Attributes:
        start_ms: Start of the cell, in milliseconds since 1970.
        end_ms: End of the cell, in milliseconds since 1970.
        experiment: The tag that names the experiment.
        cell: The tag that names the cell.
        parameters: The other tags, `name:value`.
        text: Text of the tooltip, plain.
    """

    start_ms: int
    end_ms: int
    experiment: str
    cell: str
    parameters: tuple[str, ...]
    text: str

    @property
    def fields(self) -> dict[str, Any]:
        """The region as keyword arguments of Grafana's client."""
        return {
            "time_from": self.start_ms,
            "time_to": self.end_ms,
            "tags": [TAG, self.experiment, self.cell, *self.parameters],
            "text": html.escape(self.text, quote=False),  # Grafana shows the text as HTML
        }


def push_regions(grafana: Grafana, regions: Sequence[Region]) -> Counts:
    """Mark the cells of a run on all boards; a region that exists is only updated.

    Args:
        grafana: The server.
        regions: The cells of one experiment.

    Returns:
        How many were created, updated and left unchanged.

    Raises:
        GrafanaError: Grafana refuses or cannot be reached.
    """
    counts: Counts = {"created": 0, "updated": 0, "unchanged": 0}
    done: set[Region] = set()

    def do(api: Any) -> None:
        there = {_key(old["tags"], old["time"]): old for old in _annotations(api, regions[0].experiment, len(regions))}
        for region in regions:
            if region not in done:  # a retry continues where the last attempt stopped
                counts[_push(api, region, there.get((region.cell, region.start_ms)))] += 1
                done.add(region)

    if regions:
        grafana.step("mark the cells", do)
    return counts


def _annotations(api: Any, experiment: str, expected: int) -> list[dict[str, Any]]:
    """All regions of the experiment; the limit grows until a response stays below it."""
    limit = 1000 + expected
    tags = [quote(tag, safe="") for tag in (TAG, experiment)]  # the client puts them into the URL without quoting
    while True:
        found: list[dict[str, Any]] = api.annotations.find_annotations(tags=tags, limit=limit)
        if len(found) < limit:
            return found
        limit *= 4


def _key(tags: Sequence[str], start_ms: int) -> tuple[str, int]:
    return next((tag for tag in tags if tag.startswith("cell:")), ""), start_ms


def _push(api: Any, region: Region, old: dict[str, Any] | None) -> Literal["created", "updated", "unchanged"]:
    wanted = region.fields
    if old is None:
        api.annotations.add_annotation(**wanted)
        return "created"
    same = sorted(old["tags"]) == sorted(wanted["tags"]) and old["text"] == wanted["text"]
    if same and old.get("timeEnd") == region.end_ms:
        return "unchanged"
    api.annotations.update_annotation(old["id"], **wanted)
    return "updated"
