"""From results to what a reader compares: a line for each policy, with its quality and its share of the prompt."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from orchestrator.choices import PolicyChoice
from orchestrator.quality.results import Result
from parties.policies import make

MEASURES = ("accuracy", "kl", "agreement", "nll", "reference_nll")


@dataclass(frozen=True)
class Mean:
    """A mean over n samples, and its standard error; none for a single sample."""

    value: float
    error: float | None
    n: int


@dataclass(frozen=True)
class Line:
    """One policy at one length; what was asked with the question in sight and without it never meet in one column.

    Attributes:
        policy: The policy.
        length: Tokens of the context.
        cached: Share of the prompt that stays in the cache; where layers differ, their mean.
        attended: Share of the prompt that counts in a step.
        columns: Means by (task, question, measure).
    """

    policy: PolicyChoice
    length: int
    cached: float
    attended: float
    columns: dict[tuple[str, str, str], Mean]


def lines_of(results: Iterable[Result]) -> list[Line]:
    """A line for each policy and length, in the order of the results."""
    groups: dict[tuple[int, PolicyChoice], list[Result]] = {}
    by_policy: dict[str, PolicyChoice] = {}
    for result in results:
        policy = by_policy.setdefault(result.policy.model_dump_json(), result.policy)
        groups.setdefault((result.length, policy), []).append(result)
    return [_line(policy, length, group) for (length, policy), group in groups.items()]


def mean_of(values: Sequence[float]) -> Mean:
    """Mean and standard error."""
    return Mean(fmean(values), stdev(values) / len(values) ** 0.5 if len(values) > 1 else None, len(values))


def accuracy(line: Line, question: str) -> Mean | None:
    """Mean over all tasks with one kind of question; None if nothing was asked that way."""
    found = [mean for (_, asked, measure), mean in line.columns.items() if (asked, measure) == (question, "accuracy")]
    if not found:
        return None
    errors = [mean.error for mean in found]
    spread = None if None in errors else sum(error**2 for error in errors if error is not None) ** 0.5 / len(found)
    return Mean(fmean(mean.value for mean in found), spread, sum(mean.n for mean in found))


def _line(choice: PolicyChoice, length: int, results: Sequence[Result]) -> Line:
    values: dict[tuple[str, str, str], list[float]] = {}
    for result in results:
        for measure in MEASURES:
            if measure in result.values:
                values.setdefault((result.task, result.question, measure), []).append(result.values[measure])
    policy, held = make(choice.name, **choice.parameters), length - 1
    kept = policy.cached(held)
    return Line(
        policy=choice,
        length=length,
        cached=kept / held,
        attended=min(1.0, policy.attended(kept + 1) / length),
        columns={key: mean_of(found) for key, found in values.items()},
    )
