"""The table of memory by role, of `cost` and `run --dry-run`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from orchestrator.experiment.cells import Cell
from orchestrator.experiment.gpu_roles import gpu_roles
from orchestrator.predict.memory import ROLES, Need, gpu_needs, memory_needs, together
from orchestrator.report.words import byte_count
from parties.metering.cgroup import memory
from parties.metering.nvml import own_cards

_CAPTION = """Memory of each role at its peak, about. Together: all on one host, where the peaks do not coincide.
Disk: correlated randomness that client and server store."""


def memory_table(cells: Iterable[Cell]) -> Table:
    """A row for each kind of cell: memory by role and together, and the parties' disk space; another for its GPUs."""
    kinds = list(cells)
    columns = ["engine", "policy", "prompt tokens", *(["on"] if any(cell.gpu for cell in kinds) else [])]
    result = Table(box=SIMPLE, caption_justify="left", caption=Text(_CAPTION))
    for column in (*columns, *ROLES, "together", "disk, client", "disk, server"):
        result.add_column(column, justify="left" if column in ("engine", "policy", "on") else "right", overflow="fold")
    rows = dict.fromkeys(row for cell in kinds for row in _rows(cell, places="on" in columns))
    for row in rows:
        result.add_row(*map(Text, row))
    return result


def shortfalls(cells: Sequence[Cell]) -> list[str]:
    """For each kind of cell whose roles do not all fit into the free memory of this machine, what is missing."""
    usable, found = memory(), own_cards()
    needed = {" ".join(_words(cell)): together(_on_host(cell).values()) for cell in cells}
    hosts = [
        f"{words} tokens: this machine has {usable}, and all roles need {total / 1e9:.1f} GB, "
        f"{(total - usable.available) / 1e9:.1f} GB more"
        for words, total in needed.items()
        if total > usable.available
    ]
    return (
        hosts
        if found.problem
        else [*hosts, *_gpu_shortfalls(cells, max((card.free for card in found.cards), default=0))]
    )


def _gpu_shortfalls(cells: Sequence[Cell], free: int) -> list[str]:
    """The same for the GPU of a party alone, `free` being the bytes that are free on the largest."""
    largest = {
        " ".join(_words(cell)): max(gpu_needs(cell)[role].peak for role in gpu_roles(cell))
        for cell in cells
        if cell.gpu
    }
    return [
        f"{words} tokens: the largest GPU here has {free / 1e9:.1f} GB free, and a party needs {total / 1e9:.1f} GB, "
        f"{(total - free) / 1e9:.1f} GB more"
        for words, total in largest.items()
        if total > free
    ]


def _on_host(cell: Cell) -> dict[str, Need]:
    return memory_needs(cell, gpu_roles(cell))


def _words(cell: Cell) -> tuple[str, ...]:
    return str(cell.engine), str(cell.policy), cell.prompt_tokens


def _rows(cell: Cell, *, places: bool) -> Iterator[tuple[str, ...]]:
    needs = _on_host(cell)
    disk = [byte_count(needs[role].disk) if needs[role].disk else "" for role in ("client", "server")]
    yield (*_words(cell), *(["host"] if places else []), *_sizes(needs), *disk)
    if cell.gpu:
        yield (*_words(cell), "GPU", *_sizes(gpu_needs(cell)), "", "")


def _sizes(needs: Mapping[str, Need]) -> tuple[str, ...]:
    return tuple(map(byte_count, (*(needs[role].peak for role in ROLES), together(needs.values()))))
