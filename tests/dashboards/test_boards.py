"""The generated boards: golden, linted, valid PromQL, and provisioned with their data source."""

import copy
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards import catalogue
from dashboards.boards import BOARDS, MAY_BE_EMPTY, board, documents, queries, variables
from dashboards.lint import faults
from dashboards.names import FOLDER_TITLE, FOLDER_UID, GENERATED
from dashboards.push import boards, data_source
from parties.metering.registry import METRICS
from tests.helpers.needs import needs
from tests.helpers.paths import ROOT

RENDER = ROOT / "dashboards/render"
NAMES = list(BOARDS)


def panels(of: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in of["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    return [target["expr"] for name in NAMES for panel in panels(board(name)) for target in panel["targets"]]


def test_committed_boards_equal_generated_ones() -> None:
    on_disk = {path.name: path.read_text(encoding="utf-8") for path in GENERATED.glob("*.json")}
    assert on_disk == documents(), "run: python -m dashboards"


def test_the_document_lists_the_panels_as_they_are() -> None:
    text = catalogue.DOCUMENT.read_text(encoding="utf-8")
    assert catalogue.with_list(text) == text, "run: python -m dashboards"


def test_a_document_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="put them back"):
        catalogue.with_list("# Dashboards")


@pytest.mark.parametrize("name", NAMES)
def test_a_board_keeps_every_rule(name: str) -> None:
    assert faults(board(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_sdk_reads_a_board_and_loses_nothing(name: str) -> None:
    made = board(name)
    again = json.loads(
        json.dumps(Dashboard.from_json(copy.deepcopy(made)).to_json(), default=lambda one: one.to_json())
    )
    assert [panel["targets"] for panel in panels(again)] == [panel["targets"] for panel in panels(made)]
    assert [panel["options"] for panel in panels(again)] == [panel["options"] for panel in panels(made)]


@needs("prometheus")
def test_every_query_is_promql(tmp_path: Path) -> None:
    window = {"$__rate_interval": "5s", "$__range": "60s", "$__interval": "1s"}
    filled = [re.sub(r"\$__\w+", lambda name: window[name[0]], expr) for expr in expressions()]
    rules = [{"record": f"query:{number}", "expr": expr} for number, expr in enumerate(filled)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "boards", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", tmp_path / "rules.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@needs("drawing")
def test_the_boards_keep_to_the_schema_of_the_sdks_grafana() -> None:
    done = subprocess.run(["node", "check-schema.mjs"], cwd=RENDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "against @grafana/schema 11.6" in done.stdout


def test_every_metric_is_on_a_board_or_has_a_reason() -> None:
    shown = " ".join(expressions())
    elsewhere = {
        "mpcbench_received_bytes_total": "what one party receives, another sends",
        "mpcbench_peak_resident_bytes": "the report's",
    }
    parts = {metric.name: "_(bucket|sum)" if metric.kind == "histogram" else "" for metric in METRICS}
    assert {name for name, part in parts.items() if not re.search(rf"\b{name}{part}\b", shown)} <= set(elsewhere)


def test_boards_have_unique_names_and_link_to_each_other() -> None:
    made = [board(name) for name in NAMES]
    assert len({one["uid"] for one in made}) == len({one["title"] for one in made}) == 4
    for one in made:
        (link,) = one["links"]
        assert set(link["tags"]) <= set(one["tags"])
        assert link["includeVars"]
        assert link["keepTime"]


def test_variables_are_those_that_narrow_a_run_down() -> None:
    for name in NAMES:
        listed = {variable["name"]: variable for variable in board(name)["templating"]["list"]}
        assert list(listed) == ["source", "run", "experiment", "engine", "policy", "network", "party"]
        assert not listed["run"]["multi"]  # two runs must not be added up
        assert all(listed[label]["multi"] and listed[label]["includeAll"] for label in variables.FILTERS)


@pytest.mark.parametrize(
    ("run", "experiment"),
    [("quickstart-20261123T095255-b744", "quickstart"), ("a-20261123T0-b-20261123T095255-00ff", "a-20261123T0-b")],
)
def test_the_experiment_is_read_off_the_runs_name(run: str, experiment: str) -> None:
    (hidden,) = [one for one in board("run")["templating"]["list"] if one["name"] == "experiment"]
    found = re.fullmatch(hidden["regex"].strip("/").removesuffix("$"), run)
    assert found is not None
    assert found[1] == experiment


def test_panels_that_may_be_empty_exist() -> None:
    titles = {panel["title"] for name in NAMES for panel in panels(board(name))}
    assert set(MAY_BE_EMPTY) <= titles


@pytest.mark.parametrize("name", ["mpcbench_nonsense", "mpcbench_tokens", "mpcbench_tokens_total_bucket"])
def test_a_metric_that_the_registry_does_not_know_fails_where_a_board_is_built(name: str) -> None:
    with pytest.raises(KeyError):
        queries.series(name)


def test_a_label_that_a_metric_does_not_have_fails_too() -> None:
    with pytest.raises(KeyError, match=r"mpcbench_tokens_total.*no label 'stage'"):
        queries.rate("mpcbench_tokens_total", stage="softmax")
    with pytest.raises(KeyError, match="no label 'colour'"):
        queries.of_cell("up", "colour")
    with pytest.raises(KeyError, match="variable 'colour'"):
        variables.filter_of("colour")


def provisioned(path: str) -> Any:
    return yaml.safe_load((ROOT / "dashboards/provisioning" / path).read_text(encoding="utf-8"))


def test_the_provisioned_data_source_is_the_one_that_is_pushed() -> None:
    (source,) = provisioned("datasources/mpcache-bench.yaml")["datasources"]
    assert source == data_source("http://127.0.0.1:9090")


def test_the_provider_finds_the_boards_where_the_document_mounts_them() -> None:
    (provider,) = provisioned("dashboards/mpcache-bench.yaml")["providers"]
    assert (provider["folder"], provider["folderUid"]) == (FOLDER_TITLE, FOLDER_UID)
    mount, _, folder = provider["options"]["path"].rpartition("/")
    assert (ROOT / "dashboards" / folder) == GENERATED
    document = catalogue.DOCUMENT.read_text(encoding="utf-8")
    assert f'"$PWD/dashboards:{mount}:ro"' in document
    assert f"GF_PATHS_PROVISIONING={mount}/provisioning" in document


def test_pushing_reads_the_generated_boards() -> None:
    assert sorted(one["uid"] for one in boards()) == sorted(board(name)["uid"] for name in NAMES)
