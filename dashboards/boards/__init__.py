"""Grafana boards, one file each, built with Grafana's typed SDK from the names in the metric registry."""

import json
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards.boards.hosts import hosts
from dashboards.boards.links import links
from dashboards.boards.run import run
from dashboards.boards.sweep import sweep

BOARDS = {"sweep": sweep, "run": run, "links": links, "hosts": hosts}
"""Every board by the name of its file."""

MAY_BE_EMPTY = {
    "Alerts": "while nothing is wrong",
    "Back-log of the dealer": "unless correlated randomness is made ahead",
    "Repeats": "until work is repeated",
    "GPU memory in use": "without a GPU and NVML",
    "GPU memory of the tensors": "without a GPU",
    "GPU busy": "without a GPU and NVML",
    "CPU of Ray's nodes": "unless Prometheus scrapes Ray",
    "Memory of Ray's nodes": "unless Prometheus scrapes Ray",
    "Ray's object store": "unless Prometheus scrapes Ray",
    "Ray's actors": "unless Prometheus scrapes Ray",
}
"""Panels that have nothing to show in a run that goes well on any machine, and when; all others always have."""

_OF_INTERVALS = ("auto", "auto_count", "auto_min")


def documents() -> dict[str, str]:
    """The JSON of every board, by file name; the same bytes each time."""
    return {f"{name}.json": json.dumps(board(name), indent=2, ensure_ascii=False) + "\n" for name in BOARDS}


def board(name: str) -> dict[str, Any]:
    """One board as Grafana takes it.

    Args:
        name: One of `BOARDS`.
    """
    made: dict[str, Any] = json.loads(JSONEncoder(sort_keys=True).encode(BOARDS[name]().build()))
    for variable in made["templating"]["list"]:
        for key in _OF_INTERVALS:  # the SDK gives them to every variable, Grafana's schema to intervals alone
            variable.pop(key, None)
    for number, panel in enumerate(made["panels"], start=1):
        panel["id"] = number  # links to a panel go by it
    return made
