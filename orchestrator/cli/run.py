"""`mpcache-bench run`."""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from orchestrator.cli.common import (
    ExitCode,
    ExperimentFile,
    RayAddress,
    interruptible,
    note,
    refuse,
    refusing,
    say,
    show,
)
from orchestrator.cli.rerun import rerun_in_lab
from orchestrator.experiment.problems import ConfigError
from orchestrator.run.retry import Retry

if TYPE_CHECKING:
    from socket import socket

    from orchestrator.experiment.cells import Cell
    from orchestrator.experiment.experiment import Experiment
    from orchestrator.predict.calibration import Calibration
    from orchestrator.records.record import Record
    from orchestrator.records.store import RecordStore


def run(
    context: typer.Context,
    file: ExperimentFile,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the run: records, report.")],
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
        float | None, typer.Option(min=0.0, help="Start no cell that is expected to send more in all, setup excluded.")
    ] = None,
    records: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Other runs that estimates may learn from.")
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Continue in DIR although the experiment was edited since.")
    ] = False,
    address: RayAddress = None,
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

    with refusing(CalibrationError, ConfigError, StoreError):
        experiment = load_experiment(file)
        all_cells = expand(experiment)
        cells = wanted(all_cells, [parse_only(text) for text in only or ()])
        past = [record for folder in records or () for record in RecordStore(folder).read()]
        calibration = known_calibration()
    if not cells:
        refuse(f"--only {' '.join(only or ())} matches no cell of {file}; --dry-run without it lists them all")
    with refusing(ConfigError):
        require_inputs(cells, file, elsewhere=bool(address or os.environ.get("RAY_ADDRESS")))
    if dry_run:
        elsewhere = bool(address or os.environ.get("RAY_ADDRESS"))
        _print_plan(experiment, cells, out, past, calibration, resume=resume, retry=retry, elsewhere=elsewhere)
        return
    page = _page(live_host, live_port) if live else None
    if lab:
        _run_in_lab(context, out, page)
    if page is not None:
        say("live page: http://{}:{}/".format(*page.getsockname()[:2]))
    ordered = schedule(cells, experiment.seed) if experiment.order == "seeded" else cells
    budget = Budget(limit, max_seconds, None if max_gigabytes is None else max_gigabytes * GIGABYTE)
    options: dict[str, Any] = {"all_cells": all_cells, "calibration": calibration, "address": address, "retry": retry}
    options |= {"budget": budget, "past": past, "update": update, "live": page}
    with page or nullcontext():
        _run(experiment, ordered, out, resume=resume, **options)


def _page(host: str, port: int) -> "socket":
    from orchestrator.watch.outside import page_listener
    from parties.errors import PartyError

    try:
        return page_listener(host, port)
    except PartyError as error:
        refuse(f"--live: {error}; --live-port takes another port")


def _run_in_lab(context: typer.Context, out: Path, page: "socket | None") -> NoReturn:
    """The same command in a lab, whose driver serves sockets that are opened here."""
    from orchestrator.watch.outside import inherited_sockets

    try:
        out.mkdir(parents=True, exist_ok=True)
        with inherited_sockets(page) as outside:
            rerun_in_lab(
                context,
                keep=[outside.folder],
                environment=outside.environment,
                descriptors=outside.descriptors,
            )
    except OSError as error:
        refuse(f"cannot write to {out}: {error.strerror}; choose another folder")


def _run(experiment: "Experiment", cells: "Sequence[Cell]", out: Path, *, resume: bool, **options: Any) -> NoReturn:
    from orchestrator.cli.pays_table import pays_lines
    from orchestrator.cli.tables import summary
    from orchestrator.records.pays import load_curves
    from orchestrator.records.store import LOCK_WAIT_S, RecordStore, StoreError
    from orchestrator.report import render
    from orchestrator.run.ray_session import ClusterError
    from orchestrator.run.sweep import run_sweep

    with interruptible(), refusing(ClusterError, StoreError), RecordStore(out, LOCK_WAIT_S) as store:
        if not resume:
            store.set_aside(datetime.now(UTC))
        for warning in store.warnings:
            note(f"warning: {warning}")
        outcome = run_sweep(experiment, cells, store, **options)
        if not outcome.interrupted:
            _keep_curves(store)
        paths = render(out, tuple(store.latest().values())) if outcome.records else ()
    show(summary(outcome.records))
    for line in pays_lines(load_curves(out)):
        say(line)
    say(*paths)
    if outcome.refusal:
        say(f"stopped before its end: {outcome.refusal}; cells left: {len(outcome.left)}; the same command continues")
    if outcome.interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)
    good = len(outcome.records) == len(cells) and all(record.status == "ok" for record in outcome.records)
    raise typer.Exit(ExitCode.OK if good else ExitCode.FAILED)


def _keep_curves(store: "RecordStore") -> None:
    """Writes to the run's folder from which lengths its policies are faster than the full cache.

    Raises:
        StoreError: The folder cannot be written.
    """
    from orchestrator.predict.pays import curves
    from orchestrator.records.pays import save_curves
    from orchestrator.records.store import StoreError

    records = [record for record in store.latest().values() if record.status.measured]
    if found := curves([record.cell for record in records], records):
        try:
            save_curves(store.folder, found)
        except OSError as error:
            raise StoreError(f"cannot write to {store.folder}: {error.strerror}; make room and run again") from error


def _print_plan(
    experiment: "Experiment",
    cells: "tuple[Cell, ...]",
    out: Path,
    past: "list[Record]",
    calibration: "Calibration | None",
    *,
    resume: bool,
    retry: Retry,
    elsewhere: bool,
) -> None:
    from orchestrator.cli.memory_table import memory_table, shortfalls
    from orchestrator.cli.tables import plan
    from orchestrator.records.store import RecordStore, StoreError
    from orchestrator.run.pending import unfinished
    from orchestrator.run.preflight import FIX

    with refusing(StoreError):
        latest = RecordStore(out).latest()
    pending = unfinished(cells, latest, retry) if resume else cells
    show(plan(experiment.name, cells, pending, [*past, *latest.values()], calibration))
    show(memory_table(pending))
    for missing in () if elsewhere else shortfalls(pending):
        note(f"will not run: {missing}; {FIX}")
