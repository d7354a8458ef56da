"""Table of docs/results/README.md: what private decoding costs, and whether eviction helps."""

from benchmarks.results.markdown import megabytes, relative, table
from benchmarks.results.quality import divergences, with_error
from benchmarks.results.sources import by_link, measured
from orchestrator.report.rows import Row

_LINKS = ("lan", "wan")

_RUNS = (
    ("speedup", (128,), ("crypten, full", "fss, full")),
    (
        "engines",
        (512,),
        ("spu-semi2k, full", "spu-semi2k, mpcache", "spu-aby3, full", "spu-aby3, mpcache", "fss, full"),
    ),
    ("pays", (1024, 4096), ("fss, full", "fss, mpcache", "fss, mpcache(ahead=True)")),
)
"""Run, prompt lengths and series of each line."""


def overview() -> str:
    """Cost per token by prompt, engine and policy; in brackets the share of the full cache's time."""
    lines = []
    for folder, lengths, series in _RUNS:
        found = by_link(measured(folder), lambda row: (row.seq_len, row.series))
        for seq_len, name in ((length, name) for length in lengths for name in series if (length, name) in found):
            line = found[seq_len, name]
            full = f"{name.split(', ')[0]}, full"
            base = found.get((seq_len, full), {}) if name != full else {}
            times = [relative(line.get(link), base.get(link)) for link in _LINKS]
            lines.append([f"`{name.replace(', ', '`, `', 1)}`", f"{seq_len:,}", *times, *_amounts(line)])
    head = ["engine, policy", "prompt", *_LINKS, "online bytes of the client", "online rounds", "KL at 4,096, nats"]
    return table(head, lines)


def _amounts(line: dict[str, Row]) -> list[str]:
    """Bytes, rounds, and the divergence of the policy from the full cache."""
    row = next(iter(line.values()))
    policy = str(row.first.cell.policy)
    by_window = divergences(4096).get(policy, {})
    quality = "0" if policy == "full" else with_error(list(by_window.values())) if by_window else ""
    return [megabytes(row.client_bytes), f"{row.rounds:,g}", quality]


TABLES = {"overview": overview}
