"""Builds PromQL from the registry of metrics; an unknown metric or label raises when a board is built."""

from dataclasses import dataclass

from parties.metering.registry import BY_NAME, RUN_INFO

_HISTOGRAM_PARTS = ("_bucket", "_sum", "_count")
_CELL = ("engine", "policy", "network")


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel.

    Attributes:
        expr: PromQL; Grafana fills in the variables.
        legend: Name of each series, with `{{label}}` for the value of a label.
        instant: Query the current values only, without series that have ended.
    """

    expr: str
    legend: str = ""
    instant: bool = False


def series(name: str, **matchers: str) -> str:
    """The series of a metric, filtered by the run and by the variables for its labels.

    Args:
        name: A metric of the registry; for a histogram with the suffix `_bucket`, `_sum` or `_count`.
        matchers: Further labels, each with a regular expression that it must match.

    Raises:
        KeyError: The registry has no such metric, or that metric no such label.
    """
    metric = BY_NAME[_family(name)]
    for unknown in set(matchers) - set(metric.labels):
        raise KeyError(f"metric {name!r} has no label {unknown!r}; it has {metric.labels}")
    of_party = ("party",) if not metric.driver or "peer" in metric.labels else ()  # else of the whole run
    wanted = {label: f"${label}" for label in (*of_party, *_CELL) if label in metric.labels} | matchers
    within = "".join(f', {label}=~"{value}"' for label, value in wanted.items())
    return f'{name}{{run="$run"{within}}}'


def rate(name: str, **matchers: str) -> str:
    """The rate of a counter, per second. Same arguments as `series`."""
    return f"rate({series(name, **matchers)}[$__rate_interval])"


def chosen(expr: str) -> str:
    """`expr`, restricted to cells of the chosen engines, policies and networks.

    Args:
        expr: PromQL whose result has the label `run`.
    """
    return f"{expr} and on (run) {series(RUN_INFO)}"


def largest(name: str, by: str = "party", **matchers: str) -> str:
    """The largest current value of a metric; a party of an earlier group may still serve it for a moment.

    Args:
        name: As in `series`.
        by: Labels to keep, separated by commas.
        matchers: As in `series`.
    """
    return f"max by ({by}) ({chosen(series(name, **matchers))})"


def total(expr: str, by: str) -> str:
    """The sum of `expr` over the chosen cells.

    Args:
        expr: PromQL whose result has the label `run`.
        by: Labels to keep, separated by commas.
    """
    return f"sum by ({by}) ({chosen(expr)})"


def of_cell(expr: str, *labels: str) -> str:
    """One value per run, with parameters of its current cell as labels.

    Args:
        expr: PromQL whose result has the label `run`, and at most one series per run.
        labels: Labels of `mpcbench_run_info`.

    Raises:
        KeyError: `mpcbench_run_info` has no such label.
    """
    for unknown in set(labels) - set(BY_NAME[RUN_INFO].labels):
        raise KeyError(f"{RUN_INFO} has no label {unknown!r}; it has {BY_NAME[RUN_INFO].labels}")
    return f"{expr} * on (run) group_left ({', '.join(labels)}) {series(RUN_INFO)}"


def quantile(share: float, name: str, by: str) -> str:
    """A quantile of a histogram over `$__rate_interval`.

    Args:
        share: The quantile, from 0 to 1.
        name: A histogram of the registry.
        by: Labels to keep, separated by commas.
    """
    return f"histogram_quantile({share}, {total(rate(name + '_bucket'), by + ', le')})"


def _family(name: str) -> str:
    for part in _HISTOGRAM_PARTS:
        family = name.removesuffix(part)
        if family != name and family in BY_NAME and BY_NAME[family].kind == "histogram":
            return family
    return name
