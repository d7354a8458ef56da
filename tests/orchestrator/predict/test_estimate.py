from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.predict.estimate import estimate
from orchestrator.predict.forecast import forecast
from tests.helpers import samples

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
def test_the_formula_comes_close_to_what_was_measured(
    model: str, policy: str, seq_len: int, online: int, rounds: int, dealt: int
) -> None:
    guess = estimate(samples.cell(model=model, policies=[policy], seq_lens=[seq_len]))
    assert guess.online_bytes == pytest.approx(online, rel=0.2)
    assert guess.rounds == pytest.approx(rounds, rel=0.1)
    assert guess.offline_bytes == pytest.approx(dealt, rel=0.3)
    assert guess.source == "formula"


@given(st.integers(2, 1900), st.integers(1, 100))
def test_longer_prompts_cost_no_less_with_the_full_cache(seq_len: int, more: int) -> None:
    short, long = (estimate(samples.cell(seq_lens=[n], policies=["full"])) for n in (seq_len, seq_len + more))
    assert long.online_bytes >= short.online_bytes
    assert long.seconds >= short.seconds


@given(st.integers(2, 1900), st.sampled_from(["full", "mpcache"]), st.sampled_from(["private", "client"]))
def test_every_cell_has_a_positive_estimate(seq_len: int, policy: str, argmax: str) -> None:
    guess = estimate(samples.cell(seq_lens=[seq_len], policies=[policy], argmax=argmax))
    assert guess.seconds > guess.seconds_per_token > 0
    assert guess.online_bytes > 0
    assert guess.offline_bytes > 0


def test_a_wan_costs_its_round_trips_and_its_rate() -> None:
    near, far = estimate(samples.cell()), estimate(samples.cell(networks=["wan"]))
    expected = far.rounds * 0.040 + far.online_bytes / 2 / (400e6 / 8)
    assert far.seconds - near.seconds == pytest.approx(expected)
    assert far.online_bytes == near.online_bytes


def test_opening_the_logits_is_cheaper_than_a_private_argmax() -> None:
    assert estimate(samples.cell(argmax="client")).online_bytes < estimate(samples.cell()).online_bytes


def test_fss_is_estimated_by_its_exact_counts() -> None:
    cell = samples.cell(engines=["fss"], seq_lens=[24], prefill="mpc")
    guess, cost = estimate(cell), forecast(cell).decode
    assert (guess.online_bytes, guess.offline_bytes) == (sum(cost.sent.values()), sum(cost.dealt.values()))
    assert guess.rounds == cost.rounds
    shared = estimate(samples.cell(engines=["fss"], seq_lens=[24]))
    assert guess.seconds > shared.seconds > shared.seconds_per_token > 0


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 40))
def test_many_tokens_of_fss_are_estimated_by_two(new_tokens: int) -> None:
    guess = estimate(samples.cell(engines=["fss"], seq_lens=[24], new_tokens=new_tokens))
    two = estimate(samples.cell(engines=["fss"], seq_lens=[24], new_tokens=2))
    assert guess.rounds == pytest.approx(two.rounds / 2 * new_tokens)
    assert guess.online_bytes == pytest.approx(two.online_bytes / 2 * new_tokens, rel=0.01)


def test_a_slow_dealer_is_what_a_token_waits_for() -> None:
    thin = {"name": "thin", "pairs": {"dealer>server": {"rate_mbit": 0.1}}}
    cell = samples.cell(engines=["fss"], seq_lens=[24], networks=[thin])
    dealt = forecast(cell).decode.dealt["server"]
    assert estimate(cell).seconds_per_token == pytest.approx(dealt * 8 / 0.1e6 / cell.new_tokens)


def test_the_plain_engine_sends_nothing() -> None:
    guess = estimate(samples.cell(engines=["plain"]))
    assert (guess.online_bytes, guess.offline_bytes, guess.rounds) == (0, 0, 0)


def test_a_record_of_the_same_cell_is_the_best_estimate() -> None:
    record = samples.record()
    guess = estimate(record.cell, [samples.record(samples.cell(seq_lens=[512])), record])
    assert guess.source == record.id
    assert guess.seconds_per_token == pytest.approx(record.seconds_per_token)
    assert guess.seconds == pytest.approx((record.finished - record.started).total_seconds())
    assert guess.online_bytes == pytest.approx(sum(record.totals.online.sent_bytes.values()))


def test_a_similar_record_is_scaled_by_the_formula() -> None:
    record = samples.record(seconds=100.0)
    longer = samples.cell(seq_lens=[512])
    guess = estimate(longer, [record])
    ratio = estimate(longer).seconds_per_token / estimate(record.cell).seconds_per_token
    assert guess.seconds_per_token == pytest.approx(100.0 * ratio)
    assert ratio > 1


@pytest.mark.parametrize(
    "other", [{"engines": ["plain"]}, {"model": "random:tiny-gpt2"}, {"networks": ["wan"]}, {"argmax": "client"}]
)
def test_records_of_another_setting_teach_nothing(other: dict[str, Any]) -> None:
    past = [samples.record(samples.cell(**other)), samples.failure()]
    assert estimate(samples.cell(), past).source == "formula"
