"""`mpcache-bench eval`: quality of cache policies, and the frontier of quality and private cost."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from orchestrator.cli.common import interruptible, note, refusing, say
from orchestrator.experiment.problems import ConfigError

if TYPE_CHECKING:
    from orchestrator.quality.results import Result, ResultStore
    from orchestrator.quality.study import Study


def evaluate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Study file; see docs/quality.md.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the study: results, report.")],
    records: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Past runs to take private costs from.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Processes that share the prompts.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be evaluated, and stop.")] = False,
) -> None:
    """Evaluate the quality of cache policies in the clear, and compare it with their private cost."""
    from orchestrator.predict.calibration import CalibrationError
    from orchestrator.quality.results import ResultStore  # torch comes with these, and most commands do without
    from orchestrator.quality.study import load_study
    from orchestrator.quality.work import by_prompt, points_of, unfinished
    from orchestrator.records.store import StoreError
    from parties.errors import PartyError

    interrupted = "interrupted; the same command continues from here"
    with interruptible(interrupted), refusing(CalibrationError, ConfigError, PartyError, StoreError):
        study, store = load_study(file), ResultStore(out)
        if dry_run:
            left = unfinished(study, store)
            say(f"{len(points_of(study))} points, {len(left)} left: {len(by_prompt(left))} prompts to read")
            for name in (*study.choices(), *study.presses):
                say(f"  {name}")
            return
        with store:
            store.begin(study)
            for warning in store.warnings:
                note(f"warning: {warning}")
            _run(study, store, jobs)
            _report(study, store, records or [])


def _run(study: "Study", store: "ResultStore", jobs: int) -> None:
    from orchestrator.quality.work import unfinished
    from orchestrator.quality.workers import evaluate as work

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    shown = Console(stderr=True, highlight=False)
    with Progress(TextColumn("{task.description}"), *columns, console=shown) as progress:
        bar = progress.add_task(study.name, total=len(unfinished(study, store)))

        def tick(result: "Result") -> None:
            progress.update(bar, advance=1, description=f"{result.task} {result.length} {result.name}")

        work(study, store, tick, jobs)


def _report(study: "Study", store: "ResultStore", folders: list[Path]) -> None:
    from orchestrator.predict.calibration import known_calibration
    from orchestrator.quality.averages import lines_of
    from orchestrator.quality.frontier import NETWORKS, price
    from orchestrator.quality.tables import figure, latex, markdown
    from orchestrator.records.store import RecordStore

    past = [record for folder in folders for record in RecordStore(folder).read()]
    known, lines = known_calibration(), lines_of(store.read())
    priced = [(line, price(study.model, line.policy, line.length, past, known)) for line in lines if line.policy]
    say(store.write("report.md", markdown(study.name, lines, priced)))
    say(store.write("frontier.tex", latex(priced)))
    for length in sorted({line.length for line in lines}):
        for question in study.questions:
            for network in NETWORKS:
                name = f"frontier-{length}-{question}-{network}.svg"
                say(store.write(name, figure(priced, length, question, network)))
