"""The main table for other programs: CSV with plain numbers, and a LaTeX table to copy."""

import csv
import io
from collections.abc import Sequence

from orchestrator.report.rows import Row

_COLUMNS = (
    "engine", "policy", "network", "seq_len", "runs", "seconds_per_token", "seconds_low", "seconds_high",
    "online_seconds", "offline_seconds", "client_online_bytes", "server_online_bytes", "online_rounds",
    "offline_bytes", "max_abs_logit_error", "tokens_match", "status",
)  # fmt: skip
_SPECIAL = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def csv_of(rows: Sequence[Row]) -> str:
    """One line a row: seconds, bytes and rounds per decoded token, without units or rounding."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        cell = row.first.cell
        writer.writerow(
            (
                cell.engine.name,
                str(cell.policy),
                row.network,
                row.seq_len,
                len(row.records),
                row.seconds,
                row.low,
                row.high,
                row.online_seconds,
                row.offline_seconds,
                row.client_bytes,
                row.server_bytes,
                row.rounds,
                row.offline_bytes,
                row.error,
                row.match,
                row.status,
            )
        )
    return text.getvalue()


def latex_of(rows: Sequence[Row]) -> str:
    """A `tabular` with the rules of the package booktabs."""
    head = r"engine, policy & network & prompt & s/token & online MB & rounds & offline MB \\"
    return "\n".join(
        [
            "% per decoded token; seconds: online + offline, median of the repeats (least to most); needs booktabs",
            r"\begin{tabular}{llrrrrr}",
            r"\toprule",
            head,
            r"\midrule",
            *map(_line, rows),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _line(row: Row) -> str:
    spread = f" ({row.low:.2f}--{row.high:.2f})" if len(row.records) > 1 else ""
    values = (
        _escaped(row.series),
        _escaped(row.network),
        f"{row.seq_len:,}",
        f"{row.seconds:.2f}{spread}",
        f"{row.online_bytes / 1e6:,.1f}",
        f"{row.rounds:,.0f}",
        f"{row.offline_bytes / 1e6:,.1f}",
    )
    return " & ".join(values) + r" \\"


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text)
