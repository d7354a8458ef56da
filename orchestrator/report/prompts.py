"""The cost of prompts that client and server ran themselves, apart from decoding."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from orchestrator.report.rows import Row


@dataclass(frozen=True)
class PromptRow:
    """The whole prompt of one measured point; medians where it was repeated.

    Attributes:
        row: The point.
        tokens: Tokens that were run: all but the last, which is the first private step.
        seconds: Wall time at the client, online and offline together.
        online_bytes: Both ways.
        rounds: Online rounds.
        offline_bytes: All parties.
    """

    row: Row
    tokens: int
    seconds: float
    online_bytes: float
    rounds: float
    offline_bytes: float


def prompt_rows(measured: Sequence[Row]) -> list[PromptRow]:
    """One row a point of `prefill: mpc`, in the order of `measured`."""
    return [_prompt_row(row) for row in measured if row.first.prefill_totals is not None]


def _prompt_row(row: Row) -> PromptRow:
    totals = [record.prefill_totals for record in row.records if record.prefill_totals is not None]
    return PromptRow(
        row=row,
        tokens=row.seq_len - 1,
        seconds=median(total.seconds for total in totals),
        online_bytes=median(sum(total.online.sent_bytes.values()) for total in totals),
        rounds=median(total.online.rounds for total in totals),
        offline_bytes=median(sum(total.offline.sent_bytes.values()) for total in totals),
    )
