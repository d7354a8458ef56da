"""What the commands share: exit codes, the console, and options that several of them take."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from rich.table import Table

_PIPE_WIDTH = 220  # a pipe has no width of its own: whole rows fit


class ExitCode(IntEnum):
    """What the exit status of a command means."""

    OK = 0, "all is well: every cell is ok, every check is fine"
    FAILED = 1, "the command ran, and something is wrong: a cell is not ok, a check has to be fixed, a run is slower"
    BAD_INPUT = 2, "nothing could start: an option, a file, a folder or a cluster cannot be used"
    INTERRUPTED = 130, "the user stopped it; the same command continues"

    meaning: str

    def __new__(cls, code: int, meaning: str) -> "ExitCode":
        """A code with its meaning."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member


EXIT_CODES = "Exit codes: " + "; ".join(f"{code.value} {code.meaning}" for code in ExitCode) + "."
"""The codes in a sentence, for `--help`."""

ExperimentFile = Annotated[Path, typer.Argument(metavar="FILE", help="Experiment file; see docs/experiments.md.")]
RayAddress = Annotated[str | None, typer.Option(metavar="RAY", help="Ray cluster; a local one is made if left out.")]


def show(table: "Table") -> None:
    """Print a table, as wide as the terminal or as a whole row."""
    from rich.console import Console

    console = Console(highlight=False)
    Console(highlight=False, width=None if console.is_terminal else _PIPE_WIDTH).print(table)


def say(*lines: object) -> None:
    """Print results, one per line, to standard output."""
    for line in lines:
        typer.echo(str(line))


def note(message: object) -> None:
    """Print a warning, an error or news of progress to standard error."""
    typer.echo(str(message), err=True)


def refuse(message: object) -> NoReturn:
    """End the command because of its input."""
    note(message)
    raise typer.Exit(ExitCode.BAD_INPUT)


@contextmanager
def refusing(*errors: type[Exception]) -> Iterator[None]:
    """In the block these errors are the user's to fix: their message is printed, and the command ends."""
    try:
        yield
    except errors as error:
        refuse(error)


@contextmanager
def interruptible(message: str = "") -> Iterator[None]:
    """In the block the user may press Ctrl-C: a message is printed, if there is one, and the command ends."""
    try:
        yield
    except KeyboardInterrupt:
        if message:
            note(message)
        raise typer.Exit(ExitCode.INTERRUPTED) from None
