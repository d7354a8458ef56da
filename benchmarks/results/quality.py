"""Tables of docs/results/quality.md: needles, and KL divergence on text."""

import statistics
from collections.abc import Sequence
from functools import partial

from benchmarks.results.markdown import share, table
from benchmarks.results.sources import RESULTS, Tables
from orchestrator.quality.averages import Line, lines_of
from orchestrator.quality.results import ResultStore

TASKS = ("needle_single", "needle_multikey")


def needles(length: int) -> str:
    """Share of the needles that each policy finds."""
    lines = lines_of(ResultStore(RESULTS / "quality" / f"{length}").read())
    asked = [(task, question) for task in TASKS for question in ("visible", "hidden")]
    head = ["policy", "cached", "attended", *(f"{task}, {question}" for task, question in asked)]
    return table(head, [[f"`{line.name}`", share(line.cached), share(line.attended), *_shares(line)] for line in lines])


def fidelity(length: int) -> str:
    """KL divergence from the full cache by policy, and that of a selection ahead over that of the layer's own query."""
    found, lines = divergences(length), []
    for policy, by_window in found.items():
        own = found.get(policy.replace(", ahead=True", "").replace("ahead=True, ", "").replace("(ahead=True)", ""), {})
        both = sorted(by_window.keys() & own.keys())
        ratio = sum(by_window[window] for window in both) / sum(own[window] for window in both) if both else 1.0
        note = f"{ratio:.2f} ({len(both)} windows)" if "ahead=True" in policy else ""
        lines.append([f"`{policy}`", f"{len(by_window)}", with_error(list(by_window.values())), note])
    return table(["policy", "windows", "KL (standard error), nats", "over the own query"], lines)


def divergences(length: int) -> dict[str, dict[int, float]]:
    """KL divergence of the next token from the full cache, in nats, by policy and window of so many tokens of text."""
    found: dict[str, dict[int, float]] = {}
    for result in ResultStore(RESULTS / "quality" / "ahead" / f"{length}").read():
        policy = result.point.policy
        if policy is not None and policy.name == "mpcache":
            found.setdefault(str(policy), {})[result.sample] = result.values["kl"]
    return found


def with_error(values: Sequence[float]) -> str:
    """A mean with its standard error."""
    return f"{statistics.mean(values):.3f} ({statistics.stdev(values) / len(values) ** 0.5:.3f})"


def _shares(line: Line) -> list[str]:
    """A policy's answers, single needle and several keys, with the question in sight and without."""
    return [f"{line.columns[task, q, 'accuracy'].value:.1f}" for task in TASKS for q in ("visible", "hidden")]


TABLES: Tables = {
    "needles-2048": partial(needles, 2048),
    "needles-4096": partial(needles, 4096),
    "fidelity-1024": partial(fidelity, 1024),
    "fidelity-4096": partial(fidelity, 4096),
    "fidelity-8000": partial(fidelity, 8000),
}
