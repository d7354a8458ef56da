"""Which cells run, and when a budget refuses one."""

from datetime import timedelta

import pytest

from orchestrator.experiment.cells import expand
from orchestrator.experiment.link_time import PhaseCost
from orchestrator.experiment.problems import ConfigError
from orchestrator.predict.forecast import Forecast
from orchestrator.predict.prediction import Prediction
from orchestrator.records.record import Status
from orchestrator.run.pending import Budget, Spending, parse_only, unfinished, wanted
from orchestrator.run.retry import Retry
from tests.helpers import samples

CELLS = expand(samples.experiment(engines=["plain", "crypten"]))


def expected_to_take(seconds: float, online: float | None = None, offline: float = 0.0) -> Prediction:
    """A prediction of given seconds and bytes; of unknown bytes where none are given."""
    decode = PhaseCost(9, {"client": online or 0.0, "server": 0.0}, {"client": offline, "server": 0.0})
    return Prediction(
        tokens=2, counts=None if online is None else Forecast(decode, None, exact=True), link_seconds=0.0,
        local_seconds=seconds, decode_seconds=seconds, prompt_seconds=0.0, setup_seconds=0.0, source="a test",
    )  # fmt: skip


def test_only_takes_names_and_lists() -> None:
    assert wanted(CELLS, []) == CELLS
    chosen = wanted(CELLS, [parse_only("engine=crypten seq_len=128,512"), parse_only("engine=plain policy=full")])
    assert [(cell.engine.name, cell.seq_len, cell.policy.name) for cell in chosen] == [
        ("plain", 128, "full"), ("plain", 256, "full"), ("plain", 512, "full"),
        ("crypten", 128, "full"), ("crypten", 128, "mpcache"), ("crypten", 512, "full"), ("crypten", 512, "mpcache"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"), [("", "at least one of"), ("speed=3", "speed"), ("seq_len=long", "seq_len")]
)
def test_an_invalid_only_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        parse_only(text)


def test_failed_cells_run_again_only_on_request_and_interrupted_ones_always() -> None:
    ok, died, cut, fresh, *_ = CELLS
    known = {
        ok.id: samples.record(ok),
        died.id: samples.failure(died),
        cut.id: samples.failure(cut, Status.INTERRUPTED),
    }
    assert unfinished([ok, died, cut, fresh], known, Retry.NONE) == (cut, fresh)
    assert unfinished([ok, died, cut, fresh], known, Retry.FAILED) == (died, cut, fresh)


def test_an_incorrect_result_counts_as_failed() -> None:
    known = {CELLS[0].id: samples.record(CELLS[0], status=Status.INCORRECT)}
    assert unfinished(CELLS[:1], known, Retry.NONE) == ()
    assert unfinished(CELLS[:1], known, Retry.FAILED) == CELLS[:1]


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (Budget(cells=1), "--limit 1 is reached"),
        (Budget(seconds=50), "expected to take 30 s, and 36 s of --max-seconds 50"),
        (Budget(sent_bytes=3.2e9), "expected to send 0.50 GB, and 3.06 GB of --max-gigabytes 3.20"),
    ],
)
def test_a_budget_refuses_the_cell_that_would_exceed_it(budget: Budget, reason: str) -> None:
    spending, expected = Spending(budget), expected_to_take(30, 4e8, 1e8)
    assert not spending.refusal(expected)
    record = samples.record(CELLS[0], seconds=8.0)
    assert record.finished - record.started == timedelta(seconds=36)
    spending.add(record)
    assert reason in spending.refusal(expected)


def test_bytes_of_a_failed_cell_count_too() -> None:
    spending = Spending(Budget(sent_bytes=900))
    spending.add(samples.failure(CELLS[0]))
    assert "--max-gigabytes" in spending.refusal(expected_to_take(1))


def test_without_a_budget_everything_runs() -> None:
    spending = Spending(Budget())
    for _ in range(3):
        spending.add(samples.record(CELLS[0]))
    assert spending.refusal(expected_to_take(1e9, 1e15, 1e15)) == ""
