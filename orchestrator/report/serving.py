"""The numbers of inference serving of each measured point: TTFT, TPOT, ITL, tokens per second, acceptance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from orchestrator.records.record import Serving
from orchestrator.report.rows import Row
from orchestrator.report.words import digits, duration, share
from parties.metering.token_times import percentile

NUMBERS: dict[str, tuple[str, Callable[[float | None], str]]] = {
    "TTFT": ("ttft_seconds", duration),
    "TPOT": ("tpot_seconds", duration),
    "ITL p50": ("itl_p50_seconds", duration),
    "ITL p90": ("itl_p90_seconds", duration),
    "ITL p99": ("itl_p99_seconds", duration),
    "tokens per second": ("tokens_per_second", digits),
    "acceptance": ("acceptance", share),
}
"""Each number's name for a reader, its field and how it is written."""


@dataclass(frozen=True)
class ServingRow:
    """The numbers of one point: medians of the repeats, percentiles of the latencies of all of them together.

    Attributes:
        row: The point.
        gaps: Latencies from one token to the next that the percentiles are taken of.
        prompt: Whether the time to the first token has the prompt in it.
        ttft_seconds, tpot_seconds, itl_p50_seconds, itl_p90_seconds, itl_p99_seconds: Seconds; of latencies None
            where every run had a single pass.
        tokens_per_second: Of all sequences.
        acceptance: Share of the drafted tokens that were right; None without drafts.
    """

    row: Row
    gaps: int
    prompt: bool
    ttft_seconds: float
    tpot_seconds: float
    itl_p50_seconds: float | None
    itl_p90_seconds: float | None
    itl_p99_seconds: float | None
    tokens_per_second: float
    acceptance: float | None

    @property
    def words(self) -> dict[str, str]:
        """The numbers as text, by the name for a reader."""
        return {name: write(getattr(self, field)) for name, (field, write) in NUMBERS.items()}


def serving_rows(measured: Sequence[Row]) -> list[ServingRow]:
    """One row per point whose records hold these numbers, in the order of `measured`."""
    return [found for row in measured if (found := serving_row(row)) is not None]


def serving_row(row: Row) -> ServingRow | None:
    """The numbers of one point; None if a record is of an earlier version."""
    runs = [record.serving for record in row.records if record.serving is not None]
    if len(runs) < len(row.records):
        return None
    gaps = [seconds for run in runs for seconds in run.pass_seconds[1:]]
    accepted = [run.acceptance for run in runs if run.acceptance is not None]
    return ServingRow(
        row=row,
        gaps=len(gaps),
        prompt=runs[0].ttft_covers == "prompt and first token",
        ttft_seconds=_median(runs, "ttft_seconds"),
        tpot_seconds=_median(runs, "tpot_seconds"),
        itl_p50_seconds=percentile(gaps, 0.5),
        itl_p90_seconds=percentile(gaps, 0.9),
        itl_p99_seconds=percentile(gaps, 0.99),
        tokens_per_second=_median(runs, "tokens_per_second"),
        acceptance=median(accepted) if accepted else None,
    )


def ttft_words(found: Sequence[ServingRow]) -> str:
    """What the time to the first token covers in these rows."""
    private, shared = any(one.prompt for one in found), any(not one.prompt for one in found)
    if not private:
        return "the first token alone, since the prompt was shared and ran in the clear, off the clock"
    alone = "; of a shared prompt, which ran in the clear, off the clock, the first token alone"
    return "the prompt and the first token" + (alone if shared else "")


def recording_words(found: Sequence[ServingRow]) -> str:
    """The largest part of TPOT that recording segments took; empty where nothing was recorded."""
    parts = [(_recording(one), one) for one in found]
    most, of = max(parts, key=lambda part: part[0], default=(0.0, None))
    if of is None or not most:
        return ""
    where = f"{of.row.series} at {of.row.seq_len:,} tokens, network {of.row.network}"
    return (
        f" All include the recording of segments, which only tokens wait for that enlarge the cache or do something "
        f"for the first time: at most {share(most)} of TPOT ({where}). The records have it for each step "
        f"(recording_seconds)."
    )


def _recording(one: ServingRow) -> float:
    runs = [record.serving for record in one.row.records if record.serving is not None]
    return sum(sum(run.recording_seconds) for run in runs) / sum(sum(run.pass_seconds) for run in runs)


def _median(runs: Sequence[Serving], field: str) -> float:
    return float(median(getattr(run, field) for run in runs))


def batch_rows(measured: Sequence[Row]) -> list[Row]:
    """Rows to draw against the batch: of each series and network the longest prompt that ran with several batches.

    The series are named without the batch.
    """
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in measured:
        if row.private:
            groups.setdefault((row.network, row.series_of_any_batch, row.seq_len), []).append(row)
    several = {(network, series): rows for (network, series, _), rows in sorted(groups.items()) if len(rows) > 1}
    return [replace(row, series=series) for (_, series), rows in several.items() for row in rows]
