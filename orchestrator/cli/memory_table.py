"""The table of memory by role, of `cost` and `run --dry-run`."""

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from orchestrator.experiment.cells import Cell
from orchestrator.predict.memory import ROLES, memory_needs, together
from orchestrator.report.words import byte_count
from parties.metering.cgroup import memory

_CAPTION = """Memory of each role at its peak, about. Together: all on one host, where the peaks do not coincide.
Disk: correlated randomness that client and server store."""


def memory_table(cells: Iterable[Cell]) -> Table:
    """A row for each kind of cell: memory by role and together, and the parties' disk space."""
    result = Table(box=SIMPLE, caption_justify="left", caption=Text(_CAPTION))
    for column in ("engine", "policy", "prompt tokens", *ROLES, "together", "disk, client", "disk, server"):
        result.add_column(column, justify="left" if column in ("engine", "policy") else "right", overflow="fold")
    rows = dict.fromkeys((*_words(cell), *_sizes(cell)) for cell in cells)
    for row in rows:
        result.add_row(*map(Text, row))
    return result


def shortfalls(cells: Sequence[Cell]) -> list[str]:
    """For each kind of cell whose roles do not all fit into the free memory of this machine, what is missing."""
    usable = memory()
    needed = {" ".join(_words(cell)): together(memory_needs(cell).values()) for cell in cells}
    return [
        f"{words} tokens: this machine has {usable}, and all roles need {total / 1e9:.1f} GB, "
        f"{(total - usable.available) / 1e9:.1f} GB more"
        for words, total in needed.items()
        if total > usable.available
    ]


def _words(cell: Cell) -> tuple[str, ...]:
    return str(cell.engine), str(cell.policy), cell.prompt_tokens


def _sizes(cell: Cell) -> tuple[str, ...]:
    needs = memory_needs(cell)
    sizes = [needs[role].peak for role in ROLES]
    disk = [byte_count(needs[role].disk) if needs[role].disk else "" for role in ("client", "server")]
    return (*map(byte_count, (*sizes, together(needs.values()))), *disk)
