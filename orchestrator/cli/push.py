"""`mpcache-bench observe push`: boards, data source and the cells of a run into a Grafana."""

import os
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.common import refusing, say
from orchestrator.watch.prometheus import PORT

TOKEN = "GRAFANA_TOKEN"  # noqa: S105 - the variable's name, not a token


def push(
    grafana: Annotated[str, typer.Option(metavar="URL", help="Grafana, such as http://127.0.0.1:3000.")],
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Folder of a run whose cells are marked on the boards.")
    ] = None,
    prometheus: Annotated[
        str, typer.Option(metavar="URL", help="Prometheus, as Grafana reaches it.")
    ] = f"http://127.0.0.1:{PORT}",
) -> None:
    """Store boards, data source and the cells of a run in a Grafana; its token comes from GRAFANA_TOKEN alone."""
    from dashboards.annotations import push_regions  # heavier imports wait until they are needed
    from dashboards.grafana import Grafana, GrafanaError
    from dashboards.push import boards, push_board, push_data_source, push_folder
    from orchestrator.records.store import StoreError
    from orchestrator.watch.regions import regions

    with refusing(GrafanaError, StoreError):
        cells = regions(folder) if folder else ()
        with Grafana(grafana, os.environ.get(TOKEN, "")) as server:
            say(f"folder: {push_folder(server)}")
            say(f"data source: {push_data_source(server, prometheus)}")
            for board in boards():
                say(f"board {board['title']}: {push_board(server, board)}")
            if cells:
                counts = push_regions(server, cells)
                say("cells: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
