"""`mpcache-bench report`."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.common import refusing, say


def report(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run.")]) -> None:
    """Render the report of a run again, from its records alone."""
    from orchestrator.records.store import StoreError  # heavier imports wait until they are needed
    from orchestrator.report import render

    with refusing(StoreError):
        say(*render(folder))
