import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.records.assemble import build_record, failed_record, kernel_mismatches
from orchestrator.records.record import Record, Status
from tests.helpers import samples

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LATER = NOW + timedelta(seconds=30)


@pytest.fixture(autouse=True)
def _quick_trust_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.records.assemble.trust_model", lambda engine, _: f"what {engine} says")


def build(**check: Any) -> Record:
    return build_record(samples.cell(), samples.reported(samples.results(**check)), (), NOW, LATER)


def test_a_record_survives_json() -> None:
    for record in (samples.record(), samples.failure(), build()):
        assert Record.model_validate_json(record.model_dump_json()) == record


def test_the_latency_of_a_token_leaves_out_what_was_stored_before_it() -> None:
    cells = (samples.cell(engines=["fss"], offline=offline) for offline in ("streamed", "stored"))
    streamed, stored = (samples.record(cell, seconds=10.0) for cell in cells)
    assert stored.totals is not None
    online = stored.totals.online.seconds / stored.tokens
    assert online < 10.0
    assert (streamed.token_latency, stored.token_latency) == (10.0, online)
    assert (streamed.seconds_per_token, stored.seconds_per_token) == (10.0, 10.0)
    assert samples.failure(stored.cell).token_latency is None


@pytest.mark.parametrize("status", [status for status in Status if not status.measured])
@pytest.mark.parametrize("carried", ["seconds_per_token", "totals", "stages", "check"])
def test_a_failure_carries_no_timings(status: Status, carried: str) -> None:
    values = samples.failure(status=status).model_dump()
    with pytest.raises(ValidationError, match="must not carry"):
        Record.model_validate(values | {carried: samples.record().model_dump()[carried]})


def test_a_record_has_the_numbers_of_serving_on_the_clients_clock() -> None:
    roles = samples.results()
    roles["client"] |= {"pass_seconds": [2.5, 1.0, 0.5], "tokens": 3, "decode_seconds": 4.0}
    roles["server"] |= {"pass_seconds": [9.0, 9.0, 9.0]}
    shared = build_record(samples.cell(), samples.reported(roles), (), NOW, LATER).serving
    assert shared is not None
    assert (shared.ttft_seconds, shared.ttft_covers) == (2.5, "first token")
    assert (shared.itl_p50_seconds, shared.tokens_per_second, shared.acceptance) == (0.75, 0.75, None)
    assert shared.tpot_seconds == pytest.approx(4 / 3)
    roles["client"] |= {"prefill": {"seconds": 30.0, "stages": []}}
    private = build_record(samples.cell(), samples.reported(roles), (), NOW, LATER).serving
    assert private is not None
    assert (private.ttft_seconds, private.ttft_covers) == (32.5, "prompt and first token")
    assert private.itl_p99_seconds == shared.itl_p99_seconds


def test_a_record_of_a_party_without_times_has_no_numbers_of_serving() -> None:
    assert build().serving is None


@pytest.mark.parametrize("missing", ["seconds_per_token", "totals"])
def test_a_measurement_carries_its_timings(missing: str) -> None:
    values = samples.record().model_dump()
    with pytest.raises(ValidationError, match=f"needs {missing}"):
        Record.model_validate(values | {missing: None})


def test_a_failure_has_an_error_and_a_measurement_has_none() -> None:
    error = samples.failure().model_dump()["error"]
    with pytest.raises(ValidationError, match="needs an error"):
        Record.model_validate(samples.failure().model_dump() | {"error": None})
    with pytest.raises(ValidationError, match="needs an error of the same status"):
        Record.model_validate(samples.failure().model_dump() | {"error": error | {"status": "oom"}})
    with pytest.raises(ValidationError, match="has no error"):
        Record.model_validate(samples.record().model_dump() | {"error": error})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"id": "0" * 16}, "not that of the cell"),
        ({"started": datetime(2026, 3, 1)}, "timezone"),
        ({"started": datetime(2026, 3, 1, tzinfo=timezone(timedelta(hours=1)))}, "must be in UTC"),
        ({"finished": samples.START - timedelta(seconds=1)}, "before started"),
        ({"seconds_per_token": -1.0}, "greater than or equal"),
        ({"seconds_per_token": math.nan}, "finite"),
        ({"sceonds": 1}, "Extra inputs"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        Record.model_validate(samples.record().model_dump() | changes)


RANGE = {
    "number": "product", "low": -1024.0, "high": 1024.0, "kind": "rare", "value": 2801.0, "layer": 11, "token": 0,
    "chance": 8e-6,
}  # fmt: skip


def test_a_number_that_may_have_been_truncated_wrongly_is_in_the_check_of_a_measured_cell() -> None:
    record = build(out_of_range=RANGE)
    assert record.status is Status.OK
    assert record.check is not None
    assert record.check.out_of_range is not None
    assert record.check.out_of_range.model_dump() == RANGE
    assert Record.model_validate_json(record.model_dump_json()) == record


def test_a_number_out_of_range_is_in_the_error_and_older_records_have_none() -> None:
    record = samples.failure(status=Status.OUT_OF_RANGE, out_of_range=RANGE | {"kind": "certain", "value": None})
    assert record.error is not None
    assert record.error.out_of_range is not None
    assert (record.error.out_of_range.layer, record.error.out_of_range.value) == (11, None)
    old = samples.failure().model_dump()
    del old["error"]["out_of_range"]
    assert Record.model_validate(old) == samples.failure()


def test_a_good_run_is_ok_with_totals_by_phase() -> None:
    record = build()
    assert record.status is Status.OK
    assert (record.tokens, record.seconds_per_token) == (2, 2.0)
    assert record.totals is not None
    assert record.totals.online.seconds == 3.0  # the client's own
    assert record.totals.online.blocked_seconds == 2.0
    assert record.totals.online.sent_bytes["client"] == 100
    assert record.totals.online.rounds == 3  # an exchange is one round, not one a party
    assert record.trust_model == "what crypten says"
    assert "in the clear" in record.prefill
    assert record.versions["python"]


def test_set_up_and_the_bench_itself_are_in_no_total() -> None:
    record = build()
    assert record.totals is not None
    assert record.totals.offline.seconds == 1.0  # without the 9 seconds of setup.weights and the 7 of bench.idle
    assert {stage.stage for stage in record.stages} >= {"setup.weights", "bench.idle"}


@pytest.mark.parametrize(
    "check",
    [
        {"tokens_match": False},
        {"max_abs_logit_error": 1.5},
        {"max_abs_logit_error": math.nan},
        {"max_abs_logit_error": math.inf},
    ],
)
def test_a_run_that_differs_from_plain_is_incorrect_and_keeps_its_numbers(check: dict[str, Any]) -> None:
    record = build(**check)
    assert record.status is Status.INCORRECT
    assert record.seconds_per_token == 2.0
    assert Record.model_validate_json(record.model_dump_json()) == record


def test_a_private_run_without_a_check_is_not_ok() -> None:
    results = samples.results()
    del results["referee"]["check"]
    record = build_record(samples.cell(), samples.reported(results), (), NOW, LATER)
    assert record.status is Status.INCORRECT
    assert "no check" in record.warnings[0]


def test_the_plain_engine_needs_no_check_and_runs_at_the_referee() -> None:
    idle = {role: samples.result(role, tokens=0, seconds=0.0, stages=[]) for role in ("client", "server", "dealer")}
    record = build_record(
        samples.cell(engines=["plain"]),
        samples.reported({**idle, "referee": samples.result("referee")}),
        (),
        NOW,
        LATER,
    )
    assert record.status is Status.OK
    assert record.totals is not None
    assert record.totals.online.seconds == 3.0


def test_parties_that_run_different_versions_are_warned_about() -> None:
    results = samples.results()
    results["server"]["versions"] = {"torch": "2.12.0"}
    record = build_record(samples.cell(), samples.reported(results), (), NOW, LATER, warnings=["from the driver"])
    assert record.warnings[0] == "from the driver"
    assert "torch" in record.warnings[1]
    assert "server 2.12.0" in record.warnings[1]


def test_a_failure_names_party_stage_and_bytes() -> None:
    error = {"status": "timeout", "message": "server hangs", "role": "server", "stage": "softmax", "sent_bytes": 7}
    record = failed_record(samples.cell(), error, (), NOW, LATER, experiment="synthetic")
    assert record.status is Status.TIMEOUT
    assert record.error is not None
    assert (record.error.role, record.error.stage, record.error.sent_bytes) == ("server", "softmax", 7)
    assert record.tokens == 0


def test_opened_logits_are_a_stated_leak() -> None:
    opened = build_record(samples.cell(argmax="client"), samples.reported(samples.results()), (), NOW, LATER)
    assert "opened to the client" in opened.leaks
    assert "opened to the client" not in build().leaks


def test_the_decoded_text_is_in_no_record() -> None:
    results = samples.results()
    results["client"]["text"] = "the client's secret"
    assert "secret" not in build_record(samples.cell(), samples.reported(results), (), NOW, LATER).model_dump_json()


@pytest.mark.parametrize(
    ("kernel", "shaping", "seconds", "warned"),
    [(100, "none", 2, True), (10_000_000, "none", 2, False), (10_400_000, "none", 2, False),
     (40_000_000, "none", 2, True), (30_000_000, "none", 350, False), (60_000_000, "none", 350, True),
     (22_000_000, "proxy", 2, False), (60_000_000, "proxy", 2, True)],
)  # fmt: skip
def test_the_kernels_count_is_compared_with_that_of_the_parties(
    kernel: int, shaping: str, seconds: float, warned: bool
) -> None:
    changes = {"sent_bytes": 5_000_000, "messages": 100, "seconds": seconds}
    stage = next(stage for stage in samples.result("client")["stages"] if stage["stage"] == "softmax") | changes
    here: dict[str, Any] = {"host": "10.0.0.1", "stages": [stage], "interface_sent_bytes": kernel}
    results = samples.reported({role: samples.result(role, **here) for role in ("client", "server")})
    found = kernel_mismatches(results, shaping)
    assert bool(found) == warned
    assert all("10.0.0.1" in text and "10,000,000" in text for text in found)
