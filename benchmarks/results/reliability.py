"""Tables of docs/results/reliability.md: what a soak counted."""

import json

from benchmarks.results.markdown import table
from benchmarks.results.sources import RESULTS, NotMeasuredError

_COUNTS = ("rounds", "calls", "faults", "outcomes", "records")


def soak() -> str:
    """The counts of the summary of `python -m benchmarks.soak`."""
    path = RESULTS / "soak" / "summary.json"
    if not path.exists():
        raise NotMeasuredError("soak")
    found = json.loads(path.read_text(encoding="utf-8"))
    lines = [[name, _words(found.get(name, {}))] for name in _COUNTS]
    lines += [[name.replace("_", " "), f"{found[name]:,}"] for name in ("processes", "network_namespaces", "seconds")]
    lines += [[name, f"{len(found[name])}"] for name in ("leftovers", "violations")]
    return table(["count", "number"], lines)


def _words(counts: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in sorted(counts.items()))


TABLES = {"soak": soak}
