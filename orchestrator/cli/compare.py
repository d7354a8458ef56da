"""`mpcache-bench compare`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from orchestrator.cli.common import ExitCode, refuse, refusing, say, show

if TYPE_CHECKING:
    from orchestrator.report.rows import Row

_Run = Annotated[Path, typer.Argument(help="Folder of a run.")]


def compare(
    before: _Run,
    after: _Run,
    fail_if_slower: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="PCT", help="Exit with 1 if a measurement became slower by more than this."),
    ] = None,
) -> None:
    """Compare the measurements that two runs have in common; bytes and rounds exactly, times by their repeats."""
    from orchestrator.records.store import StoreError
    from orchestrator.report.compare import compare as compared  # heavier imports wait until they are needed

    with refusing(StoreError):
        found = compared(before, after)
    table = Table(box=SIMPLE, title=Text(f"{before} -> {after}"), title_justify="left")
    columns = ["measurement", "network", "tokens", "s/token before", "after", "ratio", "time", "bytes and rounds"]
    if serving := any(pair.serving for pair in found.pairs):
        columns.append("serving")
    for name in columns:
        table.add_column(name, overflow="fold")
    for pair in found.pairs:
        old, new = pair.before, pair.after
        words = (old.series, old.network, str(old.seq_len), _seconds(old), _seconds(new), f"{pair.ratio:.2f}")
        table.add_row(*map(Text, words), pair.verdict, pair.counts, *([pair.serving] if serving else []))
    show(table)
    for text in found.environment:
        say(f"the runs also differ in {text}")
    for where, rows in ((before, found.only_before), (after, found.only_after)):
        if rows:
            names = (f"{row.series}, {row.seq_len} tokens, network {row.network}" for row in rows)
            say(f"only in {where}: {'; '.join(names)}")
    if not found.pairs:
        refuse("the runs have no measurement in common")
    if fail_if_slower is not None and any(pair.slower_by(fail_if_slower) for pair in found.pairs):
        raise typer.Exit(ExitCode.FAILED)


def _seconds(row: "Row") -> str:
    """The median, and the range if there are several runs."""
    from orchestrator.report.words import digits  # with which the whole report comes

    spread = f" ({digits(row.low)} to {digits(row.high)})" if len(row.records) > 1 else ""
    return digits(row.seconds) + spread
