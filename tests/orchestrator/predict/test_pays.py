"""From which length a policy pays: measured where cells are, predicted beyond, in words, on file."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.experiment.cells import Cell, expand
from orchestrator.predict.pays import curves
from orchestrator.predict.prediction import predict
from orchestrator.records.pays import Curve, Point, load_curves, save_curves
from orchestrator.records.record import Record
from tests.helpers import samples


def curve(*ratios: tuple[int, float], measured: int = 0) -> Curve:
    points = [Point(seq_len=n, seconds=ratio * 10, full_seconds=10.0, measured=n <= measured) for n, ratio in ratios]
    return Curve(series="fss, mpcache", network="lan", points=tuple(points))


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ([(128, 1.2), (512, 1.1), (1024, 1.01)], "not up to 1,024 tokens"),
        ([(128, 0.9), (512, 0.8)], "at every length from 128 tokens"),
        ([(128, 2.0), (512, 0.5)], "from about 260 tokens"),
        ([(128, 0.9), (256, 1.1), (512, 1.25), (2048, 0.8)], "from about 1,000 tokens"),
        ([(128, 1.25), (512, 0.8), (2048, 0.8), (8192, 1.25)], "from about 260 to about 4,100 tokens"),
        ([(128, 0.5), (512, 2.0)], "up to about 260 tokens"),
        ([(128, 1.0)], "not up to 128 tokens"),
    ],
)
def test_the_verdict_names_the_lengths_at_which_the_policy_is_faster(
    ratios: list[tuple[int, float]], verdict: str
) -> None:
    assert curve(*ratios).verdict == verdict


def test_the_basis_says_what_was_measured() -> None:
    assert curve((128, 1.2), (512, 0.9)).basis == "predicted"
    assert curve((128, 1.2), (512, 0.9), measured=512).basis == "measured at 128, 512"
    assert curve((128, 1.2), (512, 0.9), (4096, 0.5), measured=512).basis == "measured at 128, 512; predicted beyond"


def tiny(**changes: Any) -> tuple[Cell, ...]:
    """Cells of a model that takes 256 tokens."""
    shape = "random:llama?layers=1&hidden=16&heads=2&kv_heads=1&intermediate=32&vocab=64&positions=256"
    policies = ["full", "h2o", "mpcache"]
    return expand(
        samples.experiment(model=shape, engines=["plain", "fss"], policies=policies, seq_lens=[32, 64], **changes)
    )


def measured(cells: tuple[Cell, ...]) -> list[Record]:
    seconds = {"full": 4.0, "h2o": 3.0, "mpcache": 5.0}
    return [samples.record(cell, seconds=seconds[cell.policy.name] + cell.repeat) for cell in cells]


def test_measured_lengths_come_first_and_predictions_start_from_them() -> None:
    cells = tiny(repeats=3)
    past = measured(cells)
    h2o, mpcache = curves(cells, past)
    assert (h2o.series, h2o.network) == ("fss, h2o", "none")
    assert [(point.seq_len, point.measured) for point in h2o.points] == [
        (32, True), (64, True), (128, False), (254, False),
    ]  # fmt: skip
    assert {(point.seconds, point.full_seconds) for point in h2o.points[:2]} == {(4.0, 5.0)}  # medians of the repeats
    typical = [record for record in past if record.cell.repeat == 1]
    (full,) = [cell for cell in cells if cell.engine.name == "fss" and str(cell.policy) == "full"][:1]
    expected = predict(full.model_copy(update={"seq_len": 128, "new_tokens": 1}), typical, most=1)
    assert h2o.points[2].full_seconds == expected.seconds_per_token
    assert mpcache.points[0].ratio == 1.2


def test_without_records_all_lengths_are_predicted_and_without_a_cost_model_none() -> None:
    found = curves(tiny(networks=["lan", "wan"]))
    assert [(one.series, one.network) for one in found] == [
        ("fss, h2o", "lan"), ("fss, mpcache", "lan"), ("fss, h2o", "wan"), ("fss, mpcache", "wan"),
    ]  # fmt: skip
    assert [point.seq_len for point in found[0].points] == [32, 64, 128, 254]
    assert {one.basis for one in found} == {"predicted"}
    assert curves(cell for cell in tiny() if cell.policy.name != "full") == ()


def test_a_run_keeps_its_curves_and_a_damaged_file_is_none(tmp_path: Path) -> None:
    kept = (curve((128, 1.2), (512, 0.9)),)
    save_curves(tmp_path, kept)
    assert load_curves(tmp_path) == kept
    (tmp_path / "pays.json").write_text("[{}]")
    assert load_curves(tmp_path) == load_curves(tmp_path / "missing") == ()
