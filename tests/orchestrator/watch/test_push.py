"""`mpcache-bench observe push`: the command, from the records of a run to the requests to Grafana."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli.main import app
from orchestrator.records.record import Status
from orchestrator.records.store import RecordStore, StoreError
from orchestrator.watch.regions import regions
from tests.helpers.fake_grafana import TOKEN, FakeGrafana, serving_fake, status
from tests.helpers.samples import cell, failure, record


@pytest.fixture
def grafana() -> Iterator[FakeGrafana]:
    with serving_fake() as made:
        yield made


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with RecordStore(tmp_path) as store:
        store.append(record(cell()))
        store.append(failure(cell(seq_lens=[64]), Status.TIMEOUT))
    return tmp_path


def push(*arguments: str, token: str = TOKEN) -> Result:
    return CliRunner().invoke(app, ["observe", "push", *arguments], env={"GRAFANA_TOKEN": token})


def test_a_run_is_pushed_and_pushed_again(grafana: FakeGrafana, run: Path) -> None:
    done = push("--grafana", grafana.url, "--prometheus", "http://prometheus:9090", str(run))
    assert done.exit_code == 0, done.output
    assert "board mpcache-bench: Links: created" in done.output
    assert "cells: 2 created, 0 updated, 0 unchanged" in done.output
    assert next(iter(grafana.sources.values()))["url"] == "http://prometheus:9090"
    again = push("--grafana", grafana.url, "--prometheus", "http://prometheus:9090", str(run))
    assert "created" not in again.output.replace("0 created", "")
    assert "cells: 0 created, 0 updated, 2 unchanged" in again.output


def test_boards_alone_need_no_run(grafana: FakeGrafana) -> None:
    done = push("--grafana", grafana.url)
    assert done.exit_code == 0
    assert "cells:" not in done.output
    assert grafana.annotations == []


def test_a_cell_becomes_a_region_with_its_parameters(run: Path) -> None:
    first, second = regions(run)
    of = cell()
    assert (first.cell, first.experiment) == (f"cell:{of.id}", "experiment:synthetic")
    assert {"engine:crypten", "policy:full", "seq_len:128", "status:ok", "repeat:0"} <= set(first.parameters)
    assert first.end_ms > first.start_ms
    assert "crypten full 128 tokens" in first.text
    assert "per token" in first.text
    assert "status:timeout" in second.parameters
    assert "per token" not in second.text


def test_times_are_exact_to_the_millisecond(tmp_path: Path) -> None:
    made = record(cell())
    late = made.model_copy(update={"finished": made.started + timedelta(seconds=1, microseconds=234_499)})
    with RecordStore(tmp_path) as store:
        store.append(late)
    (region,) = regions(tmp_path)
    assert region.end_ms - region.start_ms == 1234


@pytest.mark.parametrize("text", ["", "{}\n", "not json\n"])
def test_a_folder_without_records_is_refused_before_anything_is_sent(
    grafana: FakeGrafana, tmp_path: Path, text: str
) -> None:
    (tmp_path / "records.jsonl").write_text(text)
    done = push("--grafana", grafana.url, str(tmp_path))
    assert done.exit_code == 2
    assert "holds no records; give the folder of a run" in done.output
    assert grafana.seen == []


def test_regions_of_a_folder_that_is_not_there() -> None:
    with pytest.raises(StoreError, match="holds no records"):
        regions(Path("/nowhere"))


def test_without_a_token_nothing_is_sent(grafana: FakeGrafana) -> None:
    done = push("--grafana", grafana.url, token="")
    assert done.exit_code == 2
    assert "GRAFANA_TOKEN" in done.output
    assert grafana.seen == []


def test_a_wrong_token_is_reported_and_not_printed(grafana: FakeGrafana) -> None:
    done = push("--grafana", grafana.url, token="glsa_someone_elses")  # noqa: S106 - not a real token
    assert done.exit_code == 2
    assert "401, the token is not valid" in done.output
    assert "glsa_someone_elses" not in done.output


def test_changes_before_a_refusal_are_reported(grafana: FakeGrafana, run: Path) -> None:
    grafana.faults = [("/annotations", status(403, "Permissions needed: annotations:create"))]
    done = push("--grafana", grafana.url, str(run))
    assert done.exit_code == 2
    assert "board mpcache-bench: Sweep: created" in done.output
    assert "could not mark the cells" in done.output
    assert "annotations:create" in done.output
    assert json.dumps(grafana.annotations) == "[]"
