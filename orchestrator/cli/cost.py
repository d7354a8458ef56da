"""`mpcache-bench cost`: what an experiment will cost, without running it."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.common import refuse, refusing, say, show
from orchestrator.experiment.problems import ConfigError


def cost(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Experiment file; see docs/experiments.md.")
    ] = None,
    stages: Annotated[bool, typer.Option("--stages", help="Also print rounds and bytes by stage, exact.")] = False,
    pays: Annotated[
        bool,
        typer.Option("--pays", help="Also print from which prompt length a policy is faster than the full cache."),
    ] = False,
    records: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Past runs that show how long local work takes.")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure this machine first, and keep the result for later.")
    ] = False,
) -> None:
    """Predict rounds, bytes, seconds and memory of every cell in FILE, without running it."""
    from orchestrator.cli.cost_tables import costs
    from orchestrator.cli.cost_tables import stages as by_stage
    from orchestrator.cli.memory_table import memory_table
    from orchestrator.cli.pays_table import pays_table
    from orchestrator.experiment.cells import expand
    from orchestrator.experiment.experiment import load_experiment
    from orchestrator.predict.calibration import (  # heavier imports wait until needed
        CalibrationError,
        known_calibration,
    )
    from orchestrator.predict.calibration import calibrate as measure
    from orchestrator.predict.pays import curves
    from orchestrator.records.store import RecordStore, StoreError
    from parties.errors import PartyError

    if file is None and not calibrate:
        refuse("name an experiment FILE, or give --calibrate")
    with refusing(CalibrationError, ConfigError, PartyError, StoreError):
        known = measure() if calibrate else known_calibration()
        if calibrate and known is not None:
            say(known.model_dump_json(indent=2))
        if file is None:
            return
        cells = [cell for cell in expand(load_experiment(file)) if not cell.repeat and not cell.warmup]
        past = [record for folder in records or () for record in RecordStore(folder).read()]
        show(costs(cells, past, known))
        show(memory_table(cells))
        for table in by_stage(cells) if stages else ():
            show(table)
        if pays:
            show(pays_table(curves(cells, past, known)))
