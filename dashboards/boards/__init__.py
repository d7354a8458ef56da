"""Grafana boards, one file per board, built with Grafana's typed SDK from the names in the metric registry."""

import json
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards.boards.hosts import hosts
from dashboards.boards.links import links
from dashboards.boards.run import run
from dashboards.boards.sweep import sweep

BOARDS = {"sweep": sweep, "run": run, "links": links, "hosts": hosts}
"""All boards by file name."""

MAY_BE_EMPTY = {
    "Acceptance": "without drafts",
    "Alerts": "while no alert is firing",
    "Dealer backlog": "unless correlated randomness is generated ahead",
    "TPOT": "until a cell has decoded all of its tokens",
    "Retries": "until work is repeated",
    "GPU memory in use": "without a GPU and NVML",
    "GPU memory of tensors": "without a GPU",
    "GPU utilisation": "without a GPU and NVML",
    "Segments replayed": "unless the engine is fss",
    "Model loaded": "unless a model is loaded by the engine fss",
    "CUDA graphs": "without a GPU",
    "GPU time by stage": "without a GPU",
    "Ray node CPU utilisation": "unless Prometheus scrapes Ray",
    "Ray node memory in use": "unless Prometheus scrapes Ray",
    "Ray object store": "unless Prometheus scrapes Ray",
    "Ray actors": "unless Prometheus scrapes Ray",
}
"""Panels that may be empty in a successful run, and when; all other panels always show data."""

_INTERVAL_KEYS = ("auto", "auto_count", "auto_min")


def documents() -> dict[str, str]:
    """The JSON of every board, by file name; deterministic to the byte."""
    return {f"{name}.json": json.dumps(board(name), indent=2, ensure_ascii=False) + "\n" for name in BOARDS}


def board(name: str) -> dict[str, Any]:
    """One board as the JSON that Grafana expects.

    Args:
        name: One of `BOARDS`.
    """
    made: dict[str, Any] = json.loads(JSONEncoder(sort_keys=True).encode(BOARDS[name]().build()))
    for variable in made["templating"]["list"]:
        for key in _INTERVAL_KEYS:  # the SDK writes them always; Grafana's schema allows them for intervals only
            variable.pop(key, None)
    for number, panel in enumerate(made["panels"], start=1):
        panel["id"] = number  # links to a panel use it
    return made
