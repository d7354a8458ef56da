"""Cells with `prefill: mpc`: known by an id of their own, recorded and reported apart from decoding."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.predict.prediction import predict
from orchestrator.records.assemble import build_record
from orchestrator.records.record import Record, Status
from orchestrator.records.store import RecordStore
from orchestrator.report import render
from orchestrator.report.prompts import prompt_rows
from orchestrator.report.rows import rows
from orchestrator.run.runner import job_of
from tests.helpers import samples

LATER = samples.START + timedelta(seconds=100)


def results(seconds: float = 30.0) -> dict[str, dict[str, Any]]:
    """The results of the parties, with three times the traffic of decoding in the prompt."""
    by_role = samples.results()
    for role in ("client", "server", "dealer"):
        stages = [
            stage | {"sent_bytes": 300, "rounds": 9, "seconds": 10.0}
            for stage in by_role[role]["stages"]
            if stage["phase"] in ("online", "offline")
        ]
        by_role[role]["prefill"] = {"seconds": seconds if role != "dealer" else 0.0, "stages": stages}
    return by_role


def record(repeat: int = 0, seconds: float = 30.0, **changes: Any) -> Record:
    cell = samples.cell(prefill="mpc", engines=["fss"], **changes)
    cell = cell.model_copy(update={"repeat": repeat})
    return build_record(cell, samples.reported(results(seconds)), (), samples.START, LATER)


def test_the_prompt_is_in_no_total_of_decoding() -> None:
    inside = record()
    outside = build_record(samples.cell(), samples.reported(samples.results()), (), samples.START, LATER)
    assert (inside.totals, inside.seconds_per_token) == (outside.totals, outside.seconds_per_token)
    assert inside.stages == outside.stages
    assert outside.prefill_totals is None
    prompt = inside.prefill_totals
    assert prompt is not None
    assert (prompt.seconds, prompt.online.seconds, prompt.online.rounds) == (30.0, 10.0, 9)
    assert prompt.online.sent_bytes == prompt.offline.sent_bytes == {"client": 300, "dealer": 300, "server": 300}
    assert "themselves" in inside.prefill
    assert Record.model_validate_json(inside.model_dump_json()) == inside


def test_the_kernels_bytes_are_held_against_prompt_and_decoding_together() -> None:
    by_role = results()
    for result in by_role.values():
        result |= {"host": "10.0.0.1", "interface_sent_bytes": 200_000_000}
    for stage in by_role["client"]["prefill"]["stages"]:
        stage["sent_bytes"] = 100_000_000
    cell = samples.cell(prefill="mpc")
    assert not build_record(cell, samples.reported(by_role), (), samples.START, LATER).warnings
    by_role["client"]["prefill"]["stages"] = []
    assert (
        "counted 200,000,000 bytes"
        in build_record(cell, samples.reported(by_role), (), samples.START, LATER).warnings[0]
    )


def test_a_failed_cell_carries_no_prompt() -> None:
    values = samples.failure(status=Status.OOM).model_dump() | {"prefill_totals": record().prefill_totals}
    with pytest.raises(ValidationError, match="must not carry"):
        Record.model_validate(values)


def test_the_cell_has_its_own_id_and_its_job_has_the_option() -> None:
    inside, outside = samples.cell(prefill="mpc"), samples.cell()
    assert inside.id != outside.id
    assert job_of(inside, show_text=False)["options"]["prefill"] == "mpc"


@pytest.mark.parametrize("engine", ["plain", "crypten", "fss"])
def test_a_prediction_includes_the_prompt_and_leaves_the_token_unchanged(engine: str) -> None:
    inside, outside = (predict(samples.cell(engines=[engine], prefill=way)) for way in ("mpc", "shared"))
    assert inside.seconds_per_token == outside.seconds_per_token
    assert inside.seconds >= outside.seconds
    if engine == "crypten":
        assert inside.seconds > outside.seconds


def test_a_cell_with_another_prefill_predicts_the_seconds_of_a_token() -> None:
    past = samples.record(samples.cell(prefill="shared"), seconds=77.0)
    guess = predict(samples.cell(prefill="mpc"), [past])
    assert guess.source == past.id
    assert guess.seconds_per_token == pytest.approx(77.0)
    assert guess.prompt_seconds > 0


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes nearly all of a report's time."""
    monkeypatch.setattr("orchestrator.report._pictures", lambda *_: [])


@pytest.mark.usefixtures("no_figures")
@pytest.mark.slow
def test_the_report_shows_the_prompt_as_medians_of_the_repeats(tmp_path: Path) -> None:
    records = [record(0, 30.0), record(1, 50.0), record(2, 31.0)]
    (row,) = prompt_rows(rows(records))
    assert (row.seconds, row.tokens, row.rounds) == (31.0, 127, 9)
    assert (row.online_bytes, row.offline_bytes) == (900, 900)
    with RecordStore(tmp_path) as store:
        for each in [*records, samples.record()]:
            store.append(each)
    page, text = (path.read_text() for path in render(tmp_path))
    assert "| fss, full, prefill mpc | none | 127 | 31 s | 900 B | 9 | 900 B |" in text
    assert "The prompt inside MPC" in page


@pytest.mark.usefixtures("no_figures")
@pytest.mark.slow
def test_a_report_without_such_cells_does_not_mention_them(tmp_path: Path) -> None:
    with RecordStore(tmp_path) as store:
        store.append(samples.record())
    assert all("inside MPC" not in path.read_text() for path in render(tmp_path))
