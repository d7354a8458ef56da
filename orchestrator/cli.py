"""The command line: `mpcache-bench`."""

import json
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from orchestrator.networks_cli import clean, lab_app, networks_app
from orchestrator.problems import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from orchestrator.cells import Cell
    from orchestrator.experiment import Experiment

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: every cell is `ok`; some cell is not; nothing could start; the user stopped it."""

_PIPE_WIDTH = 160

app = typer.Typer(
    name="mpcache-bench",
    help="Measure private LLM decoding: MPC engines, KV-cache policies, verified links.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(networks_app, name="networks")
app.add_typer(lab_app, name="lab")
app.command()(clean)

_File = Annotated[Path, typer.Argument(metavar="FILE", help="Experiment file; see docs/experiments.md.")]
_Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the run: records, report.")]


@app.command()
def run(
    file: _File,
    out: _Out,
    dry_run: Annotated[bool, typer.Option(help="Print the cells and an estimate, and start nothing.")] = False,
    resume: Annotated[bool, typer.Option(help="Skip cells that DIR has an ok record of, or run all again.")] = True,
    address: Annotated[
        str | None, typer.Option(metavar="RAY", help="Ray cluster; a local one is made if left out.")
    ] = None,
    lab: Annotated[bool, typer.Option("--lab", help="Run on emulated hosts, made for this run; needs root.")] = False,
) -> None:
    """Run the experiment in FILE and render its report; run it again to resume."""
    from orchestrator.cells import expand  # heavier imports wait until they are needed
    from orchestrator.experiment import load_experiment

    try:
        experiment = load_experiment(file)
    except ConfigError as error:
        _refuse(str(error))
    cells = expand(experiment)
    if dry_run:
        _print_plan(experiment, cells, out, resume=resume)
        return
    if lab:
        _run_in_lab(file, out, resume=resume)
    _run(experiment, cells, out, resume=resume, address=address)


@app.command()
def report(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run.")]) -> None:
    """Render the report of a run again, from its records alone."""
    from orchestrator.report import render
    from orchestrator.store import StoreError

    try:
        paths = render(folder)
    except StoreError as error:
        _refuse(str(error))
    _say(*map(str, paths))


@app.command("experiment-schema")
def experiment_schema() -> None:
    """Print the JSON schema of experiment files, for editors."""
    from orchestrator.experiment import Experiment

    _say(json.dumps(Experiment.model_json_schema(), indent=2))


@app.command("version")
def show_version() -> None:
    """Print the version."""
    try:
        _say(version("mpcache-bench"))
    except PackageNotFoundError:
        _refuse("mpcache-bench is not installed; run pip install -e . in its folder")


def main() -> None:
    """Entry point of the script `mpcache-bench`."""
    app()


def _run_in_lab(file: Path, out: Path, *, resume: bool) -> NoReturn:
    """The same command on the first host of a lab, a Ray node on each of its three hosts."""
    from netem import NetemError
    from orchestrator.lab import run_in_lab

    argv = ["mpcache-bench", "run", str(file.resolve()), "--out", str(out.resolve())]
    argv += [] if resume else ["--no-resume"]
    out.mkdir(parents=True, exist_ok=True)
    try:
        raise typer.Exit(run_in_lab(argv, keep=[out.resolve(), file.resolve().parent]))
    except NetemError as error:
        _refuse(str(error))


def _run(experiment: "Experiment", cells: "tuple[Cell, ...]", out: Path, *, resume: bool, address: str | None) -> None:
    from orchestrator.report import render
    from orchestrator.session import ClusterError
    from orchestrator.store import RecordStore, StoreError
    from orchestrator.sweep import run_sweep
    from orchestrator.tables import summary

    try:
        with RecordStore(out) as store:
            if not resume:
                store.set_aside(datetime.now(UTC))
            store.freeze(experiment, cells)
        for warning in store.warnings:
            typer.echo(f"warning: {warning}", err=True)
        outcome = run_sweep(experiment, cells, out, address=address, show_text=experiment.show_text)
        paths = render(out) if outcome.records else ()
    except (ClusterError, StoreError) as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    _show(summary(outcome.records))
    _say(*map(str, paths))
    if outcome.interrupted:
        raise typer.Exit(INTERRUPTED)
    good = len(outcome.records) == len(cells) and all(record.status == "ok" for record in outcome.records)
    raise typer.Exit(OK if good else FAILED)


def _print_plan(experiment: "Experiment", cells: "tuple[Cell, ...]", out: Path, *, resume: bool) -> None:
    from orchestrator.store import RecordStore, StoreError
    from orchestrator.tables import plan

    try:
        latest = RecordStore(out).latest()
    except StoreError as error:
        _refuse(str(error))
    _show(plan(experiment.name, cells, latest, resume=resume))


def _show(table: "Table") -> None:
    console = Console(highlight=False)
    # a pipe has no width of its own: make room for whole rows
    Console(highlight=False, width=None if console.is_terminal else _PIPE_WIDTH).print(table)


def _say(*lines: str) -> None:
    for line in lines:
        typer.echo(line)


def _refuse(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(BAD_INPUT)


if __name__ == "__main__":
    main()
