"""Grafana boards, one file each, built with Grafana's typed SDK from the names in the metric registry."""

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards.boards.hosts import hosts
from dashboards.boards.links import links
from dashboards.boards.run import run
from dashboards.boards.sweep import sweep

BOARDS = {"sweep": sweep, "run": run, "links": links, "hosts": hosts}
"""Every board by the name of its file."""


def documents() -> dict[str, str]:
    """The JSON of every board, by file name; the same bytes each time."""
    encoder = JSONEncoder(indent=2, sort_keys=True, ensure_ascii=False)
    return {f"{name}.json": encoder.encode(build().build()) + "\n" for name, build in BOARDS.items()}
