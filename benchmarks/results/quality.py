"""Tables of docs/results/quality.md: needles, text, and what each policy costs beside its quality."""

import statistics
from collections.abc import Sequence
from functools import partial

from benchmarks.results.markdown import megabytes, share, table
from benchmarks.results.sources import RESULTS, Tables
from orchestrator.quality.averages import Line, Mean, accuracy, lines_of
from orchestrator.quality.frontier import NETWORKS, Price, price, undominated
from orchestrator.quality.results import ResultStore

TASKS, QUESTIONS = ("needle_single", "needle_multikey"), ("visible", "hidden")
MODEL = "smollm2-135m"
KL, AGREEMENT = ("fidelity", "none", "kl"), ("fidelity", "none", "agreement")


def needles(length: int) -> str:
    """Share of the needles that each policy finds."""
    asked = [(task, question, "accuracy") for task in TASKS for question in QUESTIONS]
    head = ["policy", "cached", "attended", *(f"{task}, {question}" for task, question, _ in asked)]
    return table(head, [[*_policy(line), *(_mean(line.columns[key]) for key in asked)] for line in _lines(f"{length}")])


def text(length: int) -> str:
    """KL divergence of the next token from the full cache on text, and top-1 agreement with it."""
    lines = _lines(f"text/{length}")
    head = ["policy", "cached", "attended", "KL (standard error), nats", "agreement"]
    return table(
        head,
        [[*_policy(line), _mean(line.columns[KL], 3), f"{line.columns[AGREEMENT].value:.1%}"] for line in lines],
    )


def frontier(length: int) -> str:
    """Quality beside predicted cost; bold is what nothing betters that is as cheap on one of the links."""
    on_text = {line.name: line.columns[KL] for line in _lines(f"text/{length}")}
    lines = [line for line in _lines(f"{length}") if line.name in on_text]
    costs = [price(MODEL, line.policy, length) for line in lines if line.policy]
    qualities = [
        _marked(costs, [on_text[line.name] for line in lines], least=True),
        *(_marked(costs, [mean for line in lines if (mean := accuracy(line, asked))]) for asked in QUESTIONS),
    ]
    head = ["policy", "attended", "KL, nats", *(f"needles, {asked}" for asked in QUESTIONS)]
    rows = []
    for line, cost, *quality in zip(lines, costs, *qualities, strict=True):
        seconds = [f"{cost.seconds[network]:.2f} s" for network in NETWORKS]
        amounts = [megabytes(cost.online_bytes), f"{cost.rounds:,.0f}"]
        rows.append([f"`{line.name}`", share(line.attended), *quality, *seconds, *amounts])
    return table([*head, *NETWORKS, "online bytes", "rounds"], rows)


def _marked(costs: Sequence[Price], means: Sequence[Mean], *, least: bool = False) -> list[str]:
    """Means, bold on the frontier of one of the links; the least is best, or the largest."""
    values = [-mean.value if least else mean.value for mean in means]
    best = [
        undominated([(cost.seconds[network], value) for cost, value in zip(costs, values, strict=True)])
        for network in NETWORKS
    ]
    return [f"**{_mean(mean)}**" if any(on) else _mean(mean) for mean, *on in zip(means, *best, strict=True)]


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


def _lines(folder: str) -> list[Line]:
    return lines_of(ResultStore(RESULTS / "quality" / folder).read())


def _policy(line: Line) -> list[str]:
    return [f"`{line.name}`", share(line.cached), share(line.attended)]


def _mean(mean: Mean, digits: int = 2) -> str:
    return f"{mean.value:.{digits}f} ({mean.error or 0:.{digits}f})"


TABLES: Tables = {
    "quality-2048": partial(frontier, 2048),
    "needles-2048": partial(needles, 2048),
    "text-2048": partial(text, 2048),
    "needles-4096": partial(needles, 4096),
    "fidelity-1024": partial(fidelity, 1024),
    "fidelity-4096": partial(fidelity, 4096),
    "fidelity-8000": partial(fidelity, 8000),
}
