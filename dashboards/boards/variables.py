"""Template variables: what a board is narrowed down to."""

from grafana_foundation_sdk.builders.dashboard import DatasourceVariable, QueryVariable
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    VariableHide,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from parties.metering.registry import BY_NAME, RUN_INFO

STATE = BY_NAME["mpcbench_cell_state"]
"""The metric that every party serves from its start."""

SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
"""The data source of every panel and variable: the one that the user picks."""

FILTERS = ("engine", "policy", "network", "party")
"""Variables that take several values, or all."""


def source() -> DatasourceVariable:
    """The Prometheus that the boards read."""
    return DatasourceVariable("source").label("Prometheus").description("The data source to read.").type("prometheus")


def run() -> QueryVariable:
    """The run that is watched: one, so that runs are never added up."""
    return _labels_of(RUN_INFO, "", "run").label("Run").description("Experiment, start and a random suffix.")


def experiment() -> QueryVariable:
    """The experiment of the run, hidden: the tag of its annotations. A run is named NAME-TIME-SUFFIX."""
    built = _labels_of(RUN_INFO, '{run="$run"}', "run").name("experiment").label("Experiment")
    return (
        built.description("Name of the experiment.").hide(VariableHide.HIDE_VARIABLE).regex(r"/(.+)-\d{8}T\d{6}-\w+$/")
    )


def filter_of(label: str) -> QueryVariable:
    """Some values of a label, or all of the run's.

    Args:
        label: `party`, or a parameter of a cell.

    Raises:
        KeyError: The metric that the values come from has no such label.
    """
    metric = STATE if label == "party" else BY_NAME[RUN_INFO]
    if label not in metric.labels:
        raise KeyError(f"variable {label!r}: {metric.name} has no such label; it has {metric.labels}")
    everything = VariableOption(selected=True, text=["All"], value=["$__all"])
    built = _labels_of(metric.name, '{run="$run"}', label).label(label.capitalize())
    built.description(f"Show only this {label}; several may be chosen.")
    return built.multi(True).include_all(True).all_value(".*").current(everything)


def _labels_of(metric: str, selector: str, label: str) -> QueryVariable:
    return (
        QueryVariable(label)
        .datasource(SOURCE)
        .query({"query": f"label_values({metric}{selector}, {label})", "refId": label})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_CASE_INSENSITIVE_ASC)
    )
