"""From which prompt length a policy is faster than the full cache: tables and lines."""

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from orchestrator.records.pays import Curve

_COLUMNS = ("engine and policy", "network", "faster than the full cache", "known by")
_NOTE = "Lengths of the prompt, interpolated between the lengths of the table and of the records."


def pays_table(curves: Sequence[Curve]) -> Table:
    """A row for each policy and network; for each length the policy's time over that of the full cache."""
    lengths = sorted({point.seq_len for curve in curves for point in curve.points})
    table = Table(box=SIMPLE, caption=Text(_NOTE), caption_justify="left")
    for column in _COLUMNS:
        table.add_column(column, overflow="fold")
    for length in lengths:
        table.add_column(f"{length:,}", justify="right")
    for curve in curves:
        ratios = {point.seq_len: f"{point.ratio:.2f}" for point in curve.points}
        words = (curve.series, curve.network, curve.verdict, curve.basis)
        table.add_row(*map(Text, words), *(ratios.get(length, "") for length in lengths))
    return table


def pays_lines(curves: Sequence[Curve]) -> Iterator[str]:
    """A line for each network."""
    for network in dict.fromkeys(curve.network for curve in curves):
        found = [f"{curve.series} {curve.verdict}" for curve in curves if curve.network == network]
        yield f"faster than the full cache, network {network}: {'; '.join(found)}"
