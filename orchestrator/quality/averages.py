"""Averages of results: one line per policy, with its quality and its share of the prompt."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from orchestrator.quality.results import Result
from parties.policies.choice import PolicyChoice

MEASURES = ("accuracy", "kl", "agreement", "nll", "reference_nll")


@dataclass(frozen=True)
class Mean:
    """A mean over n samples and its standard error, which is None for a single sample."""

    value: float
    error: float | None
    n: int


@dataclass(frozen=True)
class Line:
    """One policy at one length. Results with a visible and with a hidden question have separate columns.

    Attributes:
        name: Name of the policy or press.
        policy: The policy; None for a press, whose counts are unknown.
        length: Tokens of the context.
        cached: Share of the prompt that stays in the cache, a mean over layers.
        attended: Share of the prompt that a step attends to.
        columns: Means by (task, question, measure).
    """

    name: str
    policy: PolicyChoice | None
    length: int
    cached: float
    attended: float
    columns: dict[tuple[str, str, str], Mean]


def lines_of(results: Iterable[Result]) -> list[Line]:
    """One line per policy and length, in the order of the results."""
    groups: dict[tuple[int, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.length, result.name), []).append(result)
    return [_line(group) for group in groups.values()]


def mean_of(values: Sequence[float]) -> Mean:
    """Mean and standard error."""
    return Mean(fmean(values), stdev(values) / len(values) ** 0.5 if len(values) > 1 else None, len(values))


def accuracy(line: Line, question: str) -> Mean | None:
    """Mean over all tasks with one kind of question; None if no task has it."""
    found = [mean for (_, asked, measure), mean in line.columns.items() if (asked, measure) == (question, "accuracy")]
    if not found:
        return None
    errors = [mean.error for mean in found]
    spread = None if None in errors else sum(error**2 for error in errors if error is not None) ** 0.5 / len(found)
    return Mean(fmean(mean.value for mean in found), spread, sum(mean.n for mean in found))


def _line(results: Sequence[Result]) -> Line:
    choice, length = results[0].policy, results[0].length
    values: dict[tuple[str, str, str], list[float]] = {}
    for result in results:
        for measure in MEASURES:
            if measure in result.values:
                values.setdefault((result.task, result.question, measure), []).append(result.values[measure])
    cached, attended = (1.0, 1.0) if choice is None else _shares(choice, length)
    return Line(
        name=results[0].name,
        policy=choice,
        length=length,
        cached=cached,
        attended=attended,
        columns={key: mean_of(found) for key, found in values.items()},
    )


def _shares(choice: PolicyChoice, length: int) -> tuple[float, float]:
    """Shares of the prompt that stay in the cache, and that a step attends to."""
    policy, held = choice.build(), length - 1
    kept = policy.cached(held)
    return kept / held, min(1.0, policy.attended(kept + 1) / length)
