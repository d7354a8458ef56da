"""`mpcache-bench doctor`."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.doctor.finding import Finding, Verdict
from orchestrator.experiment.problems import ConfigError

if TYPE_CHECKING:
    from orchestrator.experiment.experiment import Experiment
    from orchestrator.records.record import Record

_FINE, _TO_FIX, _BAD_INPUT = 0, 1, 2
_PIPE_WIDTH = 200
_STYLES = {Verdict.OK: "green", Verdict.NOTE: "", Verdict.FIX: "bold red"}


def doctor(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Experiment that is to run; hosts alone if left out.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="RAY", help="Ray cluster; this machine alone if left out.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder where the run's records will go.")] = Path(),
    records: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Past runs that tell how much memory cells take.")
    ] = None,
    lab: Annotated[bool, typer.Option("--lab", help="Check emulated hosts, made for this; needs root.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check every host before a run, and say what to fix; exits with 1 if there is anything."""
    from orchestrator.doctor.examine import examine  # heavier imports wait until they are needed
    from orchestrator.records.store import StoreError
    from orchestrator.run.ray_session import ClusterError, ray_session

    try:
        experiment, past = _asked(file, [out, *(records or ())])
        if lab:
            _in_lab(file, out, records or [], as_json=as_json)
        with ray_session(address):
            findings = tuple(_watched(examine(experiment, out, past)))
    except (ClusterError, ConfigError, StoreError) as error:
        _refuse(str(error))
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _show(findings)
    raise typer.Exit(_TO_FIX if any(finding.verdict is Verdict.FIX for finding in findings) else _FINE)


def _asked(file: Path | None, folders: list[Path]) -> "tuple[Experiment | None, list[Record]]":
    from orchestrator.experiment.experiment import load_experiment
    from orchestrator.records.store import RecordStore

    experiment = None if file is None else load_experiment(file)
    return experiment, [record for folder in folders for record in RecordStore(folder).read()]


def _in_lab(file: Path | None, out: Path, records: list[Path], *, as_json: bool) -> NoReturn:
    """The same command on the first host of a lab, a Ray node on each of its three hosts."""
    from netem import NetemError
    from orchestrator.run.lab import run_in_lab

    argv = ["mpcache-bench", "doctor", *([] if file is None else [str(file.resolve())])]
    argv += ["--out", str(out.resolve()), *(["--json"] if as_json else [])]
    argv += [word for folder in records for word in ("--records", str(folder.resolve()))]
    seen = [path.resolve() for path in (out, *records, *([] if file is None else [file.parent])) if path.exists()]
    try:
        raise typer.Exit(run_in_lab(argv, keep=seen))
    except NetemError as error:
        _refuse(str(error))


def _watched(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Findings as they come; a terminal shows what was checked last."""
    console = Console(stderr=True, highlight=False)
    with console.status("checking") as status:
        for finding in findings:
            status.update(f"checked {finding.check} of {finding.where}")
            yield finding


def _show(findings: tuple[Finding, ...]) -> None:
    table = Table(box=SIMPLE)
    for name in ("check", "where", "", "found"):
        table.add_column(name, overflow="fold")
    for finding in findings:
        verdict = Text(finding.verdict, style=_STYLES[finding.verdict])
        table.add_row(finding.check, Text(finding.where), verdict, Text(finding.told))
    console = Console(highlight=False)
    # a pipe has no width of its own: make room for whole rows
    Console(highlight=False, width=None if console.is_terminal else _PIPE_WIDTH).print(table)
    wrong = [finding for finding in findings if finding.verdict is Verdict.FIX]
    for finding in wrong:
        typer.echo(f"fix {finding.check} of {finding.where}: {finding.fix}")
    typer.echo(f"{len(wrong)} of {len(findings)} checks to fix" if wrong else f"all {len(findings)} checks are fine")


def _refuse(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(_BAD_INPUT)
