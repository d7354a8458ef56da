"""Markdown tables and the numbers in them."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from orchestrator.report.rows import Row

AMOUNTS = ("online bytes, each way", "online rounds", "offline bytes", "largest logit error")
"""Heads of the columns of `amounts`."""


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose amounts are aligned to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *lines))


def amounts(line: Mapping[str, Row]) -> list[str]:
    """Bytes and rounds per token of the first row, and the largest error of all rows of a line."""
    first = next(iter(line.values()))
    error = max(row.error or 0 for row in line.values())
    return [megabytes(first.client_bytes), f"{first.rounds:,g}", megabytes(first.offline_bytes), f"{error:.3f}"]


def seconds(row: Row | None) -> str:
    """Seconds per token, online ones if randomness was stored before; empty without a row."""
    return "" if row is None else f"{per_token(row):.3g} s"


def relative(row: Row | None, other: Row | None) -> str:
    """Seconds per token, and as a multiple of another row's where both are measured."""
    if row is None or other is None:
        return seconds(row)
    multiple = per_token(row) / per_token(other)
    return f"{seconds(row)} ({multiple:.{2 if multiple < 10 else 1}f})"


def per_token(row: Row) -> float:
    """Seconds per token, the median of the repeats; see `Record.token_latency`."""
    return median(record.token_latency or 0.0 for record in row.records)


def spread(row: Row | None) -> str:
    """The median of the seconds per token, and the range of the repeats."""
    return "" if row is None else f"{seconds(row)} ({row.low:.3g} to {row.high:.3g})"


def megabytes(size: float) -> str:
    """Bytes in MB: one decimal below 100 MB."""
    return f"{size / 1e6:,.1f} MB" if size < 1e8 else f"{size / 1e6:,.0f} MB"


def share(value: float) -> str:
    """A share in per cent."""
    return f"{100 * value:.3g} %"
