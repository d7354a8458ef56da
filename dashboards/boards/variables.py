"""Template variables of the boards: data source, run and filters."""

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
"""A metric that every party serves from its start."""

SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
"""The data source of every panel and variable, as chosen by the user."""

FILTERS = ("engine", "policy", "network", "party")
"""Variables that accept several values, or all."""


def source() -> DatasourceVariable:
    """The Prometheus data source of the boards."""
    return DatasourceVariable("source").label("Prometheus").description("The data source to read.").type("prometheus")


def run() -> QueryVariable:
    """The run to show: exactly one, so that runs are never added up."""
    return _labels_of(RUN_INFO, "", "run").label("Run").description("Experiment, start and a random suffix.")


def experiment() -> QueryVariable:
    """The experiment of the run, a hidden variable that selects its annotations. A run is named NAME-TIME-SUFFIX."""
    built = _labels_of(RUN_INFO, '{run="$run"}', "run").name("experiment").label("Experiment")
    return (
        built.description("Name of the experiment.").hide(VariableHide.HIDE_VARIABLE).regex(r"/(.+)-\d{8}T\d{6}-\w+$/")
    )


def filter_of(label: str) -> QueryVariable:
    """A filter on a label: several of its values in the run, or all.

    Args:
        label: `party`, or a parameter of a cell.

    Raises:
        KeyError: The metric that supplies the values has no such label.
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
