"""`mpcache-bench cost`: what an experiment will cost, without running it."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from orchestrator.experiment.problems import ConfigError

_BAD_INPUT = 2
_PIPE_WIDTH = 220


def cost(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Experiment file; see docs/experiments.md.")
    ] = None,
    stages: Annotated[bool, typer.Option("--stages", help="Also print rounds and bytes by stage, exact.")] = False,
    records: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Past runs that tell how long local work takes.")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure this machine first, and keep the result for later.")
    ] = False,
) -> None:
    """Predict rounds, bytes and seconds of every cell in FILE, without running it."""
    from orchestrator.cli.cost_tables import costs
    from orchestrator.cli.cost_tables import stages as by_stage
    from orchestrator.experiment.cells import expand
    from orchestrator.experiment.experiment import load_experiment
    from orchestrator.predict.calibration import (  # heavier imports wait until needed
        CalibrationError,
        known_calibration,
    )
    from orchestrator.predict.calibration import calibrate as measure
    from orchestrator.records.store import RecordStore, StoreError
    from parties.errors import PartyError

    if file is None and not calibrate:
        _refuse("name an experiment FILE, or give --calibrate")
    try:
        known = measure() if calibrate else known_calibration()
        if calibrate and known is not None:
            typer.echo(known.model_dump_json(indent=2))
        if file is None:
            return
        cells = [cell for cell in expand(load_experiment(file)) if not cell.repeat and not cell.warmup]
        past = [record for folder in records or () for record in RecordStore(folder).read()]
        _show(costs(cells, past, known))
        for table in by_stage(cells) if stages else ():
            _show(table)
    except (CalibrationError, ConfigError, PartyError, StoreError) as error:
        _refuse(str(error))


def _show(table: Table) -> None:
    console = Console(highlight=False)
    # a pipe has no width of its own: make room for whole rows
    Console(highlight=False, width=None if console.is_terminal else _PIPE_WIDTH).print(table)


def _refuse(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(_BAD_INPUT)
