"""Tables of docs/results/batches.md: several sequences at once, and several tokens in one pass."""

from benchmarks.results.markdown import AMOUNTS, amounts, seconds, share, table
from benchmarks.results.sources import measured, pivot
from orchestrator.report.rows import Row
from orchestrator.report.serving import serving_row
from parties.options import draft_words


def batches() -> str:
    """Tokens per second of all sequences together in the online phase, by the number of sequences."""
    found = measured("batch")
    sizes, lines = sorted({row.batch for row in found}), []
    for (link, policy), line in pivot(found, _link_and_policy, lambda row: row.batch).items():
        speed = {batch: batch / row.online_seconds for batch, row in line.items()}
        numbers = [f"{speed[batch]:.3g}" if batch in speed else "" for batch in sizes]
        gain = f"{speed[max(speed)] / speed[1]:.1f}" if 1 in speed and len(speed) > 1 else ""
        lines.append([link, f"`{policy}`", *numbers, gain])
    sequences = [f"{batch} sequence{'s' if batch > 1 else ''}" for batch in sizes]
    return table(["link", "policy", *sequences, "gain"], lines)


def drafts() -> str:
    """What a token costs with drafts and without; in brackets the share of the time without."""
    lines = []
    for (link, policy), line in pivot(
        measured("draft"), _link_and_policy, lambda row: draft_words(row.first.cell.draft)
    ).items():
        for draft, row in line.items():
            gain = f"{line['none'].seconds / row.seconds:.2f}" if draft != "none" and "none" in line else ""
            lines.append([link, f"`{policy}`", draft, seconds(row), gain, _accepted(row), *amounts({link: row})])
    return table(["link", "policy", "draft", "seconds per token", "gain", "accepted", *AMOUNTS], lines)


def _link_and_policy(row: Row) -> tuple[str, str]:
    return row.network, str(row.first.cell.policy)


def _accepted(row: Row) -> str:
    """The share of the drafted tokens that were accepted."""
    found = serving_row(row)
    return "" if found is None or found.acceptance is None else share(found.acceptance)


TABLES = {"batches": batches, "drafts": drafts}
