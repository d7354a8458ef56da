import subprocess
import sys
from typing import Any

import pytest

from parties.metering.collector import PartyCollector
from parties.metering.meter import StageMeter
from parties.metering.progress import Progress
from parties.metering.registry import BY_NAME, CELL_STATES, LABELS, METRICS, RUN_INFO, Metric, markdown
from tests.helpers.paths import ROOT

GOOD: dict[str, Any] = {
    "name": "mpcbench_sent_bytes_total",
    "kind": "counter",
    "unit": "bytes",
    "help": "Bytes sent.",
    "labels": ("party", "peer"),
    "formula": "Counted.",
}


def test_a_metric_that_keeps_the_rules_is_accepted() -> None:
    assert Metric(**GOOD).name == "mpcbench_sent_bytes_total"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"name": "sent_bytes_total"}, "must be mpcbench_"),
        ({"name": "mpcbench_Sent_bytes_total"}, "must be mpcbench_"),
        ({"name": "mpcbench__bytes_total"}, "must be mpcbench_"),
        ({"name": "mpcbench:sent_bytes_total"}, "must be mpcbench_"),
        ({"name": "mpcbench_sent_bytes"}, "must end with '_bytes_total'"),
        ({"name": "mpcbench_sent_total"}, "must end with '_bytes_total'"),
        ({"name": "mpcbench_sent_ms_total", "unit": "ms"}, "unit 'ms' must be one of"),
        ({"kind": "gauge"}, "must end with '_bytes'"),
        ({"name": "mpcbench_states_total", "kind": "gauge", "unit": ""}, "only the name of a counter"),
        ({"kind": "summary"}, "kind 'summary' must be"),
        ({"labels": ("party", "seq_len")}, r"labels \['seq_len'\] must be some of"),
        ({"labels": ("party", "party")}, "must not repeat"),
        ({"labels": ("stage",)}, "must begin with 'party'"),
        ({"help": ""}, "sentences"),
        ({"help": "Bytes"}, "sentences"),
        ({"formula": "counted"}, "sentences"),
    ],
    ids=str,
)
def test_a_metric_that_breaks_a_rule_is_refused_and_the_rule_named(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected) as caught:
        Metric(**{**GOOD, **change})
    assert repr(change.get("name", GOOD["name"])) in str(caught.value)


def test_names_are_unique_and_every_metric_names_its_parties() -> None:
    assert len(BY_NAME) == len(METRICS)
    assert all(metric.labels[0] == "party" for metric in METRICS)


def test_only_run_info_has_labels_without_bound() -> None:
    unbounded = {metric.name for metric in METRICS if not set(metric.labels) <= set(LABELS)}
    assert unbounded == {RUN_INFO}


def test_the_states_of_a_cell_are_listed_in_the_help() -> None:
    for number, state in enumerate(CELL_STATES):
        assert f"{number} {state}" in BY_NAME["mpcbench_cell_state"].help


def test_the_document_is_the_registry() -> None:
    document = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    assert document == markdown(), "run: python -m parties.metering.registry > docs/metrics.md"
    rows = [line for line in document.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [metric.name for metric in METRICS]
    assert all(row.count("|") == 8 for row in rows), "a bar inside a cell breaks the table"


def test_the_module_writes_the_document() -> None:
    command = [sys.executable, "-m", "parties.metering.registry"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == markdown()


def test_everything_served_is_in_the_registry_as_registered() -> None:
    meter = StageMeter()
    meter.count("server", sent=1, received=1, messages=2, rounds=1, blocked=0.1)
    for counter in ("repeats", "replayed_segments", "interpreted_segments"):
        meter.add(f"mpcbench_{counter}_total")
    for gauge in ("dealer_backlog_bytes", "loaded_ratio"):
        meter.put(f"mpcbench_{gauge}", 0)
    collector = PartyCollector("client", meter)
    collector.state = Progress(meter)
    for _ in range(2):  # the first cell has ended, the second decodes
        collector.state.enter("decode")
        collector.state.prefilled([4])
        for _ in range(2):
            collector.state.token([5], lambda tokens: tokens, numbers=2, drafted=4, accepted=1)
    served = {}
    for family in collector.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        assert name not in served, "a family is served twice"
        served[name] = family
        metric = BY_NAME[name]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)
    by_party = {metric.name for metric in METRICS if not metric.driver and not metric.name.startswith("mpcbench_gpu_")}
    assert set(served) - by_party <= {name for name in BY_NAME if name.startswith("mpcbench_gpu_")}
    assert by_party <= set(served)
