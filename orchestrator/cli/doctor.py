"""`mpcache-bench doctor`."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.cli.common import ExitCode, refusing, say, show
from orchestrator.cli.rerun import rerun_in_lab
from orchestrator.doctor.finding import Finding, Verdict
from orchestrator.experiment.problems import ConfigError

if TYPE_CHECKING:
    from orchestrator.experiment.experiment import Experiment
    from orchestrator.records.record import Record

_STYLES = {Verdict.OK: "green", Verdict.NOTE: "", Verdict.FIX: "bold red"}


def doctor(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Experiment that is to run; hosts alone if left out.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="RAY", help="Ray cluster; this machine alone if left out.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder where the run's records will go.")] = Path(),
    records: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Past runs that show how much memory cells take.")
    ] = None,
    lab: Annotated[bool, typer.Option("--lab", help="Check emulated hosts, made for this; needs root.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check every host before a run, and list what to fix; exits with 1 if there is anything."""
    from orchestrator.doctor.examine import examine  # heavier imports wait until they are needed
    from orchestrator.records.store import StoreError
    from orchestrator.run.ray_session import ClusterError, ray_session

    with refusing(ClusterError, ConfigError, StoreError):
        experiment, past = _asked(file, [out, *(records or ())])
        if lab:
            rerun_in_lab(context)
        with ray_session(address):
            findings = tuple(_watched(examine(experiment, out, past)))
    if as_json:
        say(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _show(findings)
    raise typer.Exit(ExitCode.FAILED if any(finding.verdict is Verdict.FIX for finding in findings) else ExitCode.OK)


def _asked(file: Path | None, folders: list[Path]) -> "tuple[Experiment | None, list[Record]]":
    from orchestrator.experiment.experiment import load_experiment
    from orchestrator.records.store import RecordStore

    experiment = None if file is None else load_experiment(file)
    return experiment, [record for folder in folders for record in RecordStore(folder).read()]


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
        table.add_row(finding.check, Text(finding.where), verdict, Text(finding.found))
    show(table)
    wrong = [finding for finding in findings if finding.verdict is Verdict.FIX]
    for finding in wrong:
        say(f"fix {finding.check} of {finding.where}: {finding.fix}")
    say(f"{len(wrong)} of {len(findings)} checks to fix" if wrong else f"all {len(findings)} checks are fine")
