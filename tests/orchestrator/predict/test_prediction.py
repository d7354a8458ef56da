from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.table import Table

from orchestrator.cli.cost_tables import costs
from orchestrator.cli.tables import plan
from orchestrator.experiment.cells import Cell
from orchestrator.experiment.link_time import link_seconds
from orchestrator.predict.calibration import Calibration
from orchestrator.predict.forecast import forecast
from orchestrator.predict.prediction import COUNTED_TOKENS, predict
from orchestrator.quality.frontier import price
from orchestrator.report.words import duration
from tests.helpers import samples

CALIBRATED = Calibration(
    measured=samples.START, cpu="x", weight_bytes_per_s=1e6, cipher_bytes_per_s=1e9, comparison_levels_per_s=1e9,
    look_up_bytes_per_s=1e9, seconds_per_round=1e-9,
)  # fmt: skip


def fss(**changes: Any) -> Cell:
    return samples.cell(**{"engines": ["fss"], "seq_lens": [24], **changes})


# Two decoded tokens of crypten between real parties: model, policy, prompt tokens, then online bytes sent by client and
# server, online rounds, bytes sent by the dealer.
MEASURED = [
    ("random:tiny-llama", "full", 128, 10_836_144, 1569, 1_335_886),
    ("random:tiny-llama", "full", 384, 17_932_336, 1677, 2_918_890),
    ("random:tiny-llama", "mpcache", 128, 8_157_936, 1443, 745_714),
    ("random:tiny-llama", "mpcache", 384, 10_920_880, 1737, 1_344_116),
    ("random:tiny-gpt2", "full", 128, 16_249_520, 1649, 2_106_446),
]


@pytest.mark.parametrize(("model", "policy", "seq_len", "online", "rounds", "dealt"), MEASURED)
def test_the_formula_is_close_to_the_measurement(
    model: str, policy: str, seq_len: int, online: int, rounds: int, dealt: int
) -> None:
    guess = predict(samples.cell(model=model, policies=[policy], seq_lens=[seq_len]))
    assert guess.online_bytes == pytest.approx(online, rel=0.2)
    assert guess.rounds == pytest.approx(rounds, rel=0.1)
    assert guess.offline_bytes == pytest.approx(dealt, rel=0.3)
    assert guess.source == "rule of thumb"


@given(st.integers(2, 1900), st.integers(1, 100))
def test_longer_prompts_cost_no_less_with_the_full_cache(seq_len: int, more: int) -> None:
    short, long = (predict(samples.cell(seq_lens=[n], policies=["full"])) for n in (seq_len, seq_len + more))
    assert long.online_bytes >= short.online_bytes
    assert long.seconds >= short.seconds


@given(st.integers(2, 1900), st.sampled_from(["full", "mpcache"]), st.sampled_from(["private", "client"]))
def test_every_cell_has_a_positive_prediction(seq_len: int, policy: str, argmax: str) -> None:
    guess = predict(samples.cell(seq_lens=[seq_len], policies=[policy], argmax=argmax))
    assert guess.seconds > guess.seconds_per_token > 0
    assert guess.online_bytes > 0
    assert guess.offline_bytes > 0


def test_a_wan_costs_its_round_trips_and_its_rate() -> None:
    near, far = predict(samples.cell()), predict(samples.cell(networks=["wan"]))
    expected = far.rounds * 0.040 + far.online_bytes / 2 / (400e6 / 8)
    assert far.seconds - near.seconds == pytest.approx(expected)
    assert far.online_bytes == near.online_bytes


def test_opening_the_logits_is_cheaper_than_a_private_argmax() -> None:
    assert predict(samples.cell(argmax="client")).online_bytes < predict(samples.cell()).online_bytes


def test_fss_is_predicted_by_its_exact_counts() -> None:
    cell = fss(prefill="mpc")
    guess, cost = predict(cell), forecast(cell).decode
    assert (guess.online_bytes, guess.offline_bytes) == (sum(cost.sent.values()), sum(cost.dealt.values()))
    assert guess.rounds == cost.rounds
    assert guess.seconds > predict(fss()).seconds > predict(fss()).seconds_per_token > 0


@settings(deadline=None, max_examples=5)
@given(st.integers(COUNTED_TOKENS + 1, 16))
def test_many_tokens_are_scaled_from_the_first_ones_unless_all_are_requested(new_tokens: int) -> None:
    cell = fss(new_tokens=new_tokens)
    scaled, whole = predict(cell), predict(cell, most=None)
    assert scaled.counts is not None
    assert whole.counts is not None
    assert (scaled.counts.exact, whole.counts.exact) == (False, True)
    assert scaled.rounds == pytest.approx(whole.rounds)
    assert scaled.online_bytes == pytest.approx(whole.online_bytes, rel=0.1)
    assert scaled.seconds == pytest.approx(whole.seconds, rel=0.1)


def test_a_slow_dealer_determines_the_time_per_token() -> None:
    thin = {"name": "thin", "pairs": {"dealer>server": {"rate_mbit": 0.1}}}
    cell = samples.cell(engines=["fss"], seq_lens=[24], networks=[thin])
    dealt = forecast(cell).decode.dealt["server"]
    assert predict(cell).seconds_per_token == pytest.approx(dealt * 8 / 0.1e6 / cell.new_tokens)


def test_the_plain_engine_sends_nothing() -> None:
    guess = predict(samples.cell(engines=["plain"]))
    assert (guess.online_bytes, guess.offline_bytes, guess.rounds) == (0, 0, 0)


def test_a_record_of_the_same_cell_is_taken_as_it_is() -> None:
    record = samples.record()
    guess = predict(record.cell, [samples.record(samples.cell(seq_lens=[512])), record])
    assert guess.source == record.id
    assert guess.measured
    assert guess.seconds_per_token == pytest.approx(record.seconds_per_token)
    assert guess.seconds == pytest.approx((record.finished - record.started).total_seconds())


def test_local_work_of_a_similar_record_is_scaled_by_bytes() -> None:
    record = samples.record(seconds=100.0)
    longer = samples.cell(seq_lens=[512])
    ratio = forecast(longer).decode.handled / forecast(record.cell).decode.handled
    guess = predict(longer, [record])
    assert guess.seconds_per_token == pytest.approx(100.0 * ratio)
    assert not guess.measured
    assert ratio > 1


def test_local_work_of_a_record_of_fss_is_scaled_by_its_dry_run() -> None:
    record, longer = samples.record(fss(seq_lens=[24]), seconds=100.0), fss(seq_lens=[512])
    work, more = forecast(record.cell).work, forecast(longer).work
    assert work is not None
    assert more is not None
    ratio = CALIBRATED.speeds.seconds(more) / CALIBRATED.speeds.seconds(work)
    assert predict(longer, [record], CALIBRATED).seconds_per_token == pytest.approx(100.0 * ratio)
    assert predict(longer, [record]).seconds_per_token > 100.0


def test_local_work_of_a_record_is_used_for_cells_on_other_links() -> None:
    near, far = fss(), fss(networks=["wan"])
    record = samples.record(far, seconds=50.0)
    links = link_seconds(forecast(far).decode, far.network, "fss")
    assert links > 1
    guess = predict(near, [record])
    assert guess.source == record.id
    assert guess.seconds_per_token == pytest.approx(50.0 - links / far.new_tokens)
    assert predict(near, [samples.record(far, seconds=1e-3)]).seconds_per_token == 0


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 60), st.sampled_from(["full", "mpcache"]))
def test_the_nearest_record_of_the_same_policy_is_taken(seq_len: int, policy: str) -> None:
    cell = fss(seq_lens=[seq_len], policies=[policy])
    others = [
        samples.record(fss(seq_lens=[n], policies=[p]), seconds=1.0) for n in (2, 60) for p in ("full", "mpcache")
    ]
    (best,) = [record for record in others if record.id == predict(cell, others).source]
    assert best.cell.policy == cell.policy
    assert abs(best.cell.seq_len - seq_len) <= 29


@pytest.mark.parametrize("other", [{"engines": ["plain"]}, {"model": "random:tiny-gpt2"}, {"argmax": "client"}])
def test_records_of_another_setting_are_ignored(other: dict[str, Any]) -> None:
    past = [samples.record(samples.cell(**other)), samples.failure()]
    assert predict(samples.cell(), past).source == "rule of thumb"


def test_a_record_of_a_prompt_inside_mpc_predicts_another_one() -> None:
    cell, longer = (samples.cell(prefill="mpc", seq_lens=[n]) for n in (128, 512))
    totals = samples.record().totals
    assert totals is not None
    prompt = {"seconds": 5.0, "online": totals.online, "offline": totals.offline, "stages": ()}
    record = samples.record(cell, seconds=10.0, prefill_totals=prompt)
    assert predict(cell).prompt_seconds == 127 * predict(cell).seconds_per_token
    assert predict(cell, [record]).prompt_seconds == pytest.approx(5.0)
    assert predict(longer, [record]).prompt_seconds > 5.0 * 511 / 127


def test_a_calibration_is_used_without_a_similar_record_and_only_for_a_cpu() -> None:
    work = forecast(fss()).work
    assert work is not None
    guess = predict(fss(), [], CALIBRATED)
    assert guess.source == "calibration"
    assert guess.local_seconds == pytest.approx(CALIBRATED.speeds.seconds(work))
    record = samples.record(fss())
    assert predict(fss(), [record], CALIBRATED).source == record.id
    for other in (fss().model_copy(update={"gpu": True}), samples.cell()):
        assert predict(other, [], CALIBRATED).source == "rule of thumb"


def texts(table: Table, column: str) -> list[str]:
    return [str(text) for each in table.columns if each.header == column for text in each.cells]


@pytest.mark.parametrize("learned", [False, True])
def test_the_dry_run_the_costs_and_the_frontier_show_the_same_prediction(learned: bool) -> None:
    cell = fss(policies=["full"], new_tokens=1, networks=["wan"])
    past = [samples.record(fss(seq_lens=[30], policies=["full"]), seconds=3.0)] if learned else []
    expected = predict(cell, past)
    planned, costed = plan("x", [cell], [cell], past), costs([cell], past, None)
    assert texts(planned, "time, about")[0] == duration(expected.seconds)
    assert texts(costed, "seconds") == [duration(expected.seconds_per_token)]
    assert texts(costed, "compute from") == texts(planned, "from")[:1] == [expected.source]
    assert price(cell.model, cell.policy, 24, past).seconds["wan"] == expected.seconds_per_token
