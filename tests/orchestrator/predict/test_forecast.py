from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.predict.forecast import PARTIES, PhaseCost, dealing_seconds, forecast, network_seconds, wall_seconds
from orchestrator.predict.local_work import compute
from tests.helpers import samples

ASYMMETRIC = {
    "name": "uneven", "rate_mbit": 100, "delay_ms": 10,
    "pairs": {"client>server": {"rate_mbit": 10, "delay_ms": 30}, "dealer>server": {"rate_mbit": 1}},
}  # fmt: skip


def fss(**changes: Any) -> Any:
    return samples.cell(**{"engines": ["fss"], "seq_lens": [24], **changes})


def test_stages_sum_to_the_totals_of_both_parties() -> None:
    for cost in (forecast(fss()).decode, forecast(fss(prefill="mpc")).prefill):
        assert cost is not None
        assert sum(stage.rounds for stage in cost.stages) == cost.rounds > 0
        for role in PARTIES:
            assert sum(stage.sent[role] for stage in cost.stages) == cost.sent[role] > 0


def test_what_a_cell_costs_does_not_depend_on_its_links_or_repeats() -> None:
    cells = [fss(networks=[network], repeats=2) for network in ("none", "wan")]
    assert forecast(cells[0]) is forecast(cells[1])


def test_rounds_do_not_depend_on_the_length_but_bytes_do() -> None:
    short, long = (forecast(fss(seq_lens=[n])).decode for n in (24, 96))
    assert short.rounds == long.rounds
    assert short.sent["client"] < long.sent["client"]
    assert short.dealt["server"] < long.dealt["server"]


def test_logits_to_the_client_cost_the_server_one_message_instead_of_a_tournament() -> None:
    private, client = (forecast(fss(argmax=argmax)).decode for argmax in ("private", "client"))
    assert client.rounds < private.rounds
    assert sum(client.dealt.values()) < sum(private.dealt.values())


def test_only_fss_is_exact_and_only_a_walk_knows_the_prompt() -> None:
    assert forecast(fss()).exact
    assert forecast(fss(prefill="mpc")).prefill is not None
    assert forecast(fss()).prefill is None
    assert not forecast(samples.cell()).exact
    assert forecast(samples.cell(prefill="mpc")).prefill is None


def test_a_round_of_fss_takes_the_longer_way_once_and_bytes_the_slower_one() -> None:
    cell = fss(networks=[ASYMMETRIC])
    cost = PhaseCost(rounds=100, sent={"client": 5e6, "server": 10e6}, dealt={"client": 1e6, "server": 2e6})
    assert network_seconds(cost, cell) == pytest.approx(100 * 0.030 + 5e6 * 8 / 10e6)
    assert dealing_seconds(cost, cell) == pytest.approx(2e6 * 8 / 1e6)


def test_material_that_comes_before_is_not_waited_for() -> None:
    cost = PhaseCost(rounds=0, sent={"client": 0, "server": 0}, dealt={"client": 0, "server": 1e6})
    streamed, stored = (fss(networks=[ASYMMETRIC], offline=offline) for offline in ("streamed", "stored"))
    assert wall_seconds(1.0, cost, streamed) == dealing_seconds(cost, streamed) == pytest.approx(8.0)
    assert wall_seconds(1.0, cost, stored) == 1.0
    assert wall_seconds(9.0, cost, streamed) == 9.0


def test_how_signs_are_found_changes_rounds_and_material() -> None:
    dcf, carry = (forecast(fss(comparison=comparison)).decode for comparison in ("dcf", "prefix"))
    assert dcf.rounds < carry.rounds
    assert dcf.dealt["client"] > carry.dealt["client"] == 24


def test_a_round_of_crypten_takes_the_way_to_the_dealer_and_back() -> None:
    cost = PhaseCost(rounds=100, sent={"client": 0, "server": 0}, dealt={"client": 0, "server": 0})
    assert network_seconds(cost, samples.cell(networks=[ASYMMETRIC])) == pytest.approx(100 * 0.020)


def test_links_left_as_they_are_take_no_time() -> None:
    cost = PhaseCost(rounds=100, sent={"client": 1e9, "server": 1e9}, dealt={"client": 1e9, "server": 1e9})
    assert network_seconds(cost, fss()) == dealing_seconds(cost, fss()) == 0


def test_without_records_or_calibration_nobody_knows_how_long_it_computes() -> None:
    assert compute(fss()) is None
    assert compute(fss(), [samples.failure(fss()), samples.record(samples.cell())]) is None


def test_a_record_of_the_same_cell_tells_what_its_links_do_not_explain() -> None:
    cell = fss(networks=["wan"])
    record = samples.record(cell, seconds=50.0)
    found = compute(cell, [record])
    assert found is not None
    assert found.source == record.id
    links = network_seconds(forecast(cell).decode, cell)
    assert found.seconds == pytest.approx(50.0 * cell.new_tokens - links)
    assert links > 1


def test_links_that_explain_more_than_was_measured_leave_nothing() -> None:
    cell = fss(networks=["wan"])
    found = compute(cell, [samples.record(cell, seconds=1e-3)])
    assert found is not None
    assert found.seconds == 0


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 60), st.sampled_from(["full", "mpcache"]))
def test_the_nearest_record_of_the_same_policy_is_scaled_by_bytes(seq_len: int, policy: str) -> None:
    cell = fss(seq_lens=[seq_len], policies=[policy])
    others = [
        samples.record(fss(seq_lens=[n], policies=[p]), seconds=1.0) for n in (2, 60) for p in ("full", "mpcache")
    ]
    found = compute(cell, others)
    assert found is not None
    (best,) = [record for record in others if record.id == found.source]
    assert best.cell.policy == cell.policy
    assert abs(best.cell.seq_len - seq_len) <= 29
    ratio = forecast(cell).decode.handled / forecast(best.cell).decode.handled
    assert found.seconds == pytest.approx(best.tokens * ratio)
