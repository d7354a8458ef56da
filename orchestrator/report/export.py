"""The main table for other programs: CSV and Parquet with plain numbers, and a LaTeX table to copy."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from orchestrator.report.rows import Row
from orchestrator.report.serving import NUMBERS, serving_row

_COLUMNS = {
    "engine": "string", "policy": "string", "network": "string", "seq_len": "int64", "runs": "int64",
    "seconds_per_token": "float64", "seconds_low": "float64", "seconds_high": "float64",
    "online_seconds": "float64", "offline_seconds": "float64", "client_online_bytes": "float64",
    "server_online_bytes": "float64", "online_rounds": "float64", "offline_bytes": "float64",
    "max_abs_logit_error": "float64", "tokens_match": "bool_", "status": "string",
}  # fmt: skip
"""Amounts are per decoded token, and medians of repeats: no whole numbers."""
_SERVING = {"batch": "int64"} | {field: "float64" for field, _ in NUMBERS.values()}
"""Further columns, where records hold these numbers."""
_SPECIAL = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def csv_of(rows: Sequence[Row]) -> str:
    """One line per row: seconds, bytes and rounds per decoded token, without units or rounding."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(_columns(rows)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(_plain, rows))
    return text.getvalue()


def parquet_of(rows: Sequence[Row]) -> bytes:
    """The same table as an Apache Parquet file, with a type for each column."""
    room = io.BytesIO()
    schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in _columns(rows).items()])
    parquet.write_table(pa.Table.from_pylist([*map(_plain, rows)], schema), room)
    return room.getvalue()


def _columns(rows: Sequence[Row]) -> dict[str, str]:
    """The columns of the rows, with their types."""
    return _COLUMNS | (_SERVING if any(serving_row(row) is not None for row in rows) else {})


def _plain(row: Row) -> dict[str, Any]:
    cell = row.first.cell
    values = (
        str(cell.engine),
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
        str(row.status),
    )
    serving = serving_row(row)
    numbers = {} if serving is None else {field: getattr(serving, field) for field, _ in NUMBERS.values()}
    return dict(zip(_COLUMNS, values, strict=True)) | ({"batch": row.batch, **numbers} if numbers else {})


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
