"""Each rule of the linter finds its faults."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.boards import board
from dashboards.lint import _overlap, faults

GOOD = board("run")
Spoil = Callable[[dict[str, Any]], Any]


def first(made: dict[str, Any], kind: str = "timeseries") -> dict[str, Any]:
    found: dict[str, Any] = next(panel for panel in made["panels"] if panel["type"] == kind)
    return found


def query(expr: str) -> Spoil:
    return lambda made: first(made)["targets"][0].update(expr=expr)


FAULTY: dict[str, tuple[Spoil, str]] = {
    "editable": (lambda made: made.update(editable=True), "is editable"),
    "time zone": (lambda made: made.update(timezone="utc"), "time zone is 'utc'"),
    "link without variables": (lambda made: made["links"][0].update(includeVars=False), "loses the variables"),
    "link without time": (lambda made: made["links"][0].update(keepTime=False), "loses the variables or the time"),
    "overlap": (lambda made: first(made)["gridPos"].update(y=0), "overlap"),
    "no id": (lambda made: first(made).pop("id"), "missing or not unique"),
    "id twice": (lambda made: first(made).update(id=1), "the ids of the panels are missing or not unique"),
    "title twice": (lambda made: first(made).update(title="Tokens decoded"), "two panels are called 'Tokens decoded'"),
    "variable's source": (
        lambda made: made["templating"]["list"][1]["datasource"].update(uid="abc"), "data source of its own",
    ),
    "legacy kind": (lambda made: first(made).update(type="graph"), "kind 'graph' is not one of"),
    "no title": (lambda made: first(made).update(title=""), "has no title"),
    "no question": (lambda made: first(made).update(description="Bytes."), "begin with the question"),
    "no unit": (lambda made: first(made)["fieldConfig"]["defaults"].update(unit=""), "has no unit"),
    "no thresholds": (lambda made: first(made)["fieldConfig"]["defaults"].pop("thresholds"), "has no thresholds"),
    "fixed source": (lambda made: first(made)["datasource"].update(uid="prom"), "not the variable ${source}"),
    "no source": (lambda made: first(made).pop("datasource"), "not the variable ${source}"),
    "no query": (lambda made: first(made).update(targets=[]), "has no query"),
    "too wide": (lambda made: first(made)["gridPos"].update(x=20, w=12), "ends at column 32 of 24"),
    "dead metric": (query('mpcbench_gone_total{run="$run"}'), "no exporter serves 'mpcbench_gone_total'"),
    "dead rule": (query('mpcbench:gone:rate5s{run="$run"}'), "no exporter serves 'mpcbench:gone:rate5s'"),
    "bucket of a gauge": (query('mpcbench_cache_tokens_bucket{run="$run"}'), "no exporter serves"),
    "unknown variable": (query('mpcbench_cell_state{run="$run", party="$who"}'), "no variable $who"),
    "fixed window": (query('rate(mpcbench_tokens_total{run="$run"}[1m])'), "use $__rate_interval"),
    "window of an interval": (query('rate(mpcbench_tokens_total{run="$run"}[$__interval])'), "use $__rate_interval"),
    "all runs": (query("sum(mpcbench_cache_tokens)"), "adds up runs"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "words"), FAULTY.values(), ids=FAULTY)
def test_a_fault_is_found_and_named(spoil: Spoil, words: str) -> None:
    made = copy.deepcopy(GOOD)
    spoil(made)
    assert any(words in fault for fault in faults(made)), faults(made)


def test_recorded_series_may_be_shown() -> None:
    made = copy.deepcopy(GOOD)
    query('mpcbench:sent_bytes:rate5s{run="$run"}')(made)
    assert faults(made, frozenset({"mpcbench:sent_bytes:rate5s"})) == []


def test_metrics_of_others_need_no_run() -> None:
    made = copy.deepcopy(GOOD)
    query("avg(ray_node_cpu_utilization)")(made)
    assert faults(made) == []


boxes = st.fixed_dictionaries(
    {"x": st.integers(0, 23), "y": st.integers(0, 20), "w": st.integers(1, 24), "h": st.integers(1, 9)}
)


@given(boxes, boxes)
def test_overlap_is_sharing_a_square(one: dict[str, int], other: dict[str, int]) -> None:
    def squares(box: dict[str, int]) -> set[tuple[int, int]]:
        return {(x, y) for x in range(box["x"], box["x"] + box["w"]) for y in range(box["y"], box["y"] + box["h"])}

    assert _overlap(one, other) == bool(squares(one) & squares(other))
