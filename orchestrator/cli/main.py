"""The command line: `mpcache-bench`."""

import json
import os
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from orchestrator.cli.compare import compare
from orchestrator.cli.cost import cost
from orchestrator.cli.doctor import doctor
from orchestrator.cli.eval import evaluate
from orchestrator.cli.networks import clean, lab_app, networks_app
from orchestrator.cli.observe import app as observe_app
from orchestrator.cli.policies import policies
from orchestrator.cli.submit import submit
from orchestrator.cli.train import train
from orchestrator.experiment.problems import ConfigError
from orchestrator.run.retry import Retry

if TYPE_CHECKING:
    from socket import socket

    from rich.table import Table

    from orchestrator.experiment.cells import Cell
    from orchestrator.experiment.experiment import Experiment
    from orchestrator.predict.calibration import Calibration
    from orchestrator.records.record import Record

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
app.add_typer(observe_app, name="observe")
app.command()(clean)
app.command()(policies)
app.command()(cost)
app.command()(doctor)
app.command()(compare)
app.command()(submit)
app.command()(train)
app.command("eval")(evaluate)

_File = Annotated[Path, typer.Argument(metavar="FILE", help="Experiment file; see docs/experiments.md.")]
_Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the run: records, report.")]


@app.command()
def run(
    file: _File,
    out: _Out,
    dry_run: Annotated[bool, typer.Option(help="Print the cells and an estimate, and start nothing.")] = False,
    resume: Annotated[bool, typer.Option(help="Skip cells that DIR has a record of, or run all again.")] = True,
    retry: Annotated[Retry, typer.Option(help="Recorded cells to run again.")] = Retry.NONE,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="CELLS", help="Such as `engine=fss seq_len=128,256`; may be given several times."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Run at most N cells now.")] = None,
    max_seconds: Annotated[
        float | None, typer.Option(min=0.0, help="Start no cell that is expected to end later than this.")
    ] = None,
    max_gigabytes: Annotated[
        float | None, typer.Option(min=0.0, help="Start no cell that is expected to send more in all, setup aside.")
    ] = None,
    records: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Other runs that estimates may learn from.")
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Go on in DIR although the experiment was edited since.")
    ] = False,
    address: Annotated[
        str | None, typer.Option(metavar="RAY", help="Ray cluster; a local one is made if left out.")
    ] = None,
    lab: Annotated[bool, typer.Option("--lab", help="Run on emulated hosts, made for this run; needs root.")] = False,
    live: Annotated[bool, typer.Option("--live", help="Serve a page that shows the run while it lasts.")] = False,
    live_host: Annotated[str, typer.Option(metavar="HOST", help="Address of that page.")] = "127.0.0.1",
    live_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of that page; 0 takes a free one.")] = 8870,
) -> None:
    """Run the experiment in FILE and render its report; run it again to resume."""
    from orchestrator.experiment.cells import expand, schedule  # heavier imports wait until they are needed
    from orchestrator.experiment.experiment import load_experiment
    from orchestrator.predict.calibration import CalibrationError, known_calibration
    from orchestrator.records.store import RecordStore, StoreError
    from orchestrator.run.inputs import require_inputs
    from orchestrator.run.pending import GIGABYTE, Budget, parse_only, wanted

    try:
        experiment = load_experiment(file)
        all_cells = expand(experiment)
        cells = wanted(all_cells, [parse_only(text) for text in only or ()])
        past = [record for folder in records or () for record in RecordStore(folder).read()]
        calibration = known_calibration()
    except (CalibrationError, ConfigError, StoreError) as error:
        _refuse(str(error))
    if not cells:
        _refuse(f"--only {' '.join(only or ())}: no cell of {file} is meant; --dry-run without it lists them all")
    try:
        require_inputs(cells, file, elsewhere=bool(address or os.environ.get("RAY_ADDRESS")))
    except ConfigError as error:
        _refuse(str(error))
    if dry_run:
        _print_plan(experiment, cells, out, past, calibration, resume=resume, retry=retry)
        return
    page = _page(live_host, live_port) if live else None
    if lab:
        options = {"resume": resume, "retry": retry, "only": only, "limit": limit, "max-seconds": max_seconds}
        options |= {"max-gigabytes": max_gigabytes, "records": records, "update": update, "live": live}
        _run_in_lab(file, out, options, page)
    if page is not None:
        _say("live page: http://{}:{}/".format(*page.getsockname()[:2]))
    ordered = schedule(cells, experiment.seed) if experiment.order == "seeded" else cells
    budget = Budget(limit, max_seconds, None if max_gigabytes is None else max_gigabytes * GIGABYTE)
    asked: dict[str, Any] = {"all_cells": all_cells, "calibration": calibration}
    asked |= {"address": address, "retry": retry, "budget": budget, "past": past, "update": update, "live": page}
    with page or nullcontext():
        _run(experiment, ordered, out, resume=resume, **asked)


@app.command()
def report(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run.")]) -> None:
    """Render the report of a run again, from its records alone."""
    from orchestrator.records.store import StoreError
    from orchestrator.report import render

    try:
        paths = render(folder)
    except StoreError as error:
        _refuse(str(error))
    _say(*map(str, paths))


@app.command("experiment-schema")
def experiment_schema() -> None:
    """Print the JSON schema of experiment files, for editors."""
    from orchestrator.experiment.experiment import Experiment

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


def _page(host: str, port: int) -> "socket":
    from orchestrator.watch.outside import page_listener
    from parties.errors import PartyError

    try:
        return page_listener(host, port)
    except PartyError as error:
        _refuse(f"--live: {error}; --live-port takes another port")


def _run_in_lab(file: Path, out: Path, options: dict[str, Any], page: "socket | None") -> NoReturn:
    """The same command on the first host of a lab, a Ray node on each of its three hosts."""
    from netem import NetemError
    from orchestrator.run.lab import run_in_lab
    from orchestrator.watch.outside import inherited_sockets

    argv = ["mpcache-bench", "run", str(file.resolve()), "--out", str(out.resolve()), *_written(options)]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with inherited_sockets(page) as outside:
            keep = [out.resolve(), file.resolve().parent, outside.folder]
            told, inherited = outside.environment, outside.descriptors
            raise typer.Exit(run_in_lab(argv, keep=keep, environment=told, descriptors=inherited))
    except NetemError as error:
        _refuse(str(error))
    except OSError as error:
        _refuse(f"cannot write to {out}: {error.strerror}; choose another folder")


def _written(options: dict[str, Any]) -> Iterator[str]:
    """Options as words of a command line, paths absolute: the hosts of a lab start elsewhere."""
    for name, value in options.items():
        if isinstance(value, bool):
            yield from [f"--{name}"] if value else [f"--no-{name}"] if name == "resume" else []
        else:
            several = value if isinstance(value, list) else [value]
            for one in several:
                yield from [] if one is None else [f"--{name}", str(one.resolve() if isinstance(one, Path) else one)]


def _run(experiment: "Experiment", cells: "tuple[Cell, ...]", out: Path, *, resume: bool, **options: Any) -> None:
    from orchestrator.cli.tables import summary
    from orchestrator.records.store import LOCK_WAIT_S, RecordStore, StoreError
    from orchestrator.report import render
    from orchestrator.run.ray_session import ClusterError
    from orchestrator.run.sweep import run_sweep

    try:
        with RecordStore(out, LOCK_WAIT_S) as store:
            if not resume:
                store.set_aside(datetime.now(UTC))
            for warning in store.warnings:
                typer.echo(f"warning: {warning}", err=True)
            outcome = run_sweep(experiment, cells, store, **options)
            paths = render(out, tuple(store.latest().values())) if outcome.records else ()
    except (ClusterError, StoreError) as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    _show(summary(outcome.records))
    _say(*map(str, paths))
    if outcome.refusal:
        _say(f"stopped before its end: {outcome.refusal}; {len(outcome.left)} cells are left, the same command goes on")
    if outcome.interrupted:
        raise typer.Exit(INTERRUPTED)
    good = len(outcome.records) == len(cells) and all(record.status == "ok" for record in outcome.records)
    raise typer.Exit(OK if good else FAILED)


def _print_plan(
    experiment: "Experiment",
    cells: "tuple[Cell, ...]",
    out: Path,
    past: "list[Record]",
    calibration: "Calibration | None",
    *,
    resume: bool,
    retry: Retry,
) -> None:
    from orchestrator.cli.tables import plan
    from orchestrator.records.store import RecordStore, StoreError
    from orchestrator.run.pending import unfinished

    try:
        latest = RecordStore(out).latest()
    except StoreError as error:
        _refuse(str(error))
    pending = unfinished(cells, latest, retry) if resume else cells
    _show(plan(experiment.name, cells, pending, [*past, *latest.values()], calibration))


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
