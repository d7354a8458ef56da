"""Tables of docs/results/networks.md: seconds by prompt length and link, and when MPCache pays."""

from functools import partial

from benchmarks.results.markdown import AMOUNTS, amounts, relative, spread, table
from benchmarks.results.sources import Tables, by_link, links_of, measured, records
from orchestrator.predict.pays import curves


def seconds() -> str:
    """Seconds per token by engine, policy and length: medians with the shortest and the longest run."""
    found = measured("networks")
    links, lines = links_of(found), []
    for (engine, policy, seq_len), line in by_link(
        found, lambda row: (str(row.first.cell.engine), row.first.cell.policy.name, row.seq_len)
    ).items():
        lines.append([f"`{engine}`, `{policy}`", f"{seq_len:,}", *(spread(line.get(link)) for link in links)])
    return table(["engine, policy", "prompt", *links], lines)


def by_length(folder: str) -> str:
    """Cost per token of a run by length, policy and link; in brackets the share of the full cache's time."""
    measurements = measured(folder)
    links, lines = links_of(measurements), []
    found = by_link(measurements, lambda row: (row.seq_len, str(row.first.cell.policy)))
    for (seq_len, policy), line in found.items():
        full = found.get((seq_len, "full"), {})
        times = [relative(line.get(link), full.get(link)) for link in links]
        lines.append([f"{seq_len:,}", f"`{policy}`", *times, *amounts(line)])
    return table(["prompt", "policy", *links, *AMOUNTS], lines)


def crossings() -> str:
    """The lengths at which each policy is faster than the full cache, by link."""
    found = records("pays")
    lines = [
        [curve.network, f"`{curve.series.removeprefix('fss, ')}`", curve.verdict, curve.basis]
        for curve in curves([record.cell for record in found], found)
    ]
    return table(["link", "policy", "faster than the full cache", "known by"], sorted(lines))


TABLES: Tables = {
    "seconds": seconds,
    "pays": partial(by_length, "pays"),
    "crossings": crossings,
    "sweep": partial(by_length, "sweep"),
}
