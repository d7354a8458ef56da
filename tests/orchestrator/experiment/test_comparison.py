"""The way of comparing follows from the links, is resolved in the cell, and reaches every party."""

from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.experiment.cells import Cell, expand
from orchestrator.experiment.comparison import COSTS, choose_comparison, token_seconds
from orchestrator.experiment.link_time import wall_seconds
from orchestrator.experiment.networks import ResolvedNetwork, parse_network
from orchestrator.experiment.problems import ConfigError
from orchestrator.predict.forecast import forecast
from orchestrator.predict.prediction import predict
from orchestrator.run.runner import job_of
from parties.options import Comparison
from tests.helpers.samples import experiment


def links(delay_ms: float, dealer_mbit: float) -> ResolvedNetwork:
    thin = {"rate_mbit": dealer_mbit, "delay_ms": delay_ms}
    network: Any = parse_network(
        {"name": "mine", "rate_mbit": 10_000, "delay_ms": delay_ms, "pairs": {"dealer>server": thin}}
    )
    return network


def reference_token(comparison: Comparison, network: object) -> Cell:
    """The cell whose counts the table holds."""
    asked = {"engines": ["fss"], "policies": ["mpcache"], "seq_lens": [1024], "new_tokens": 1, "networks": [network]}
    return expand(experiment(model="smollm2-135m", comparison=comparison, **asked))[0]


@pytest.mark.parametrize("preset", ["none", "lan", "wan", "wan-1g-10ms", "wan-100m-80ms"])
@pytest.mark.parametrize("offline", ["streamed", "stored"])
def test_usual_links_are_slow_by_their_delay(preset: str, offline: str) -> None:
    network: Any = parse_network(preset)
    assert choose_comparison(network, offline) == "dcf"


def test_a_slow_link_from_the_dealer_selects_little_randomness() -> None:
    assert choose_comparison(links(0.1, 50), "streamed") == "prefix"
    assert choose_comparison(links(20.0, 50), "streamed") == "dcf"


@given(st.floats(0, 200), st.floats(1, 10_000), st.sampled_from(["streamed", "stored"]))
def test_more_delay_never_selects_more_rounds_and_a_slower_link_never_more_randomness(
    delay_ms: float, mbit: float, offline: str
) -> None:
    rounds = [COSTS[choose_comparison(links(delay, mbit), offline)].rounds for delay in (delay_ms, delay_ms + 5)]
    material = [COSTS[choose_comparison(links(delay_ms, rate), offline)].dealt["server"] for rate in (mbit, mbit / 4)]
    assert rounds[0] >= rounds[1]
    assert material[0] >= material[1]


@pytest.mark.parametrize("comparison", get_args(Comparison))
@pytest.mark.slow
def test_the_reference_token_costs_what_the_engine_predicts(comparison: Comparison) -> None:
    predicted = forecast(reference_token(comparison, "none")).decode
    assert replace(predicted, stages=(), retries=0.0) == COSTS[comparison]


@pytest.mark.parametrize("network", ["lan", "wan", links(0.1, 50).model_dump()])
@pytest.mark.parametrize("comparison", get_args(Comparison))
def test_the_choice_follows_the_seconds_that_the_prediction_gives_the_links(
    comparison: Comparison, network: object
) -> None:
    cell = reference_token(comparison, network)
    expected = predict(cell)
    links_alone = wall_seconds(0.0, COSTS[comparison], cell.network, "fss", "streamed")
    assert token_seconds(COSTS[comparison], cell.network, "streamed") == links_alone
    assert expected.decode_seconds == pytest.approx(
        wall_seconds(expected.local_seconds, COSTS[comparison], cell.network, "fss", "streamed")
    )


def test_auto_is_resolved_for_each_network_before_the_cell_has_its_id() -> None:
    thin = links(0.1, 50).model_dump()
    cells = expand(experiment(engines=["fss"], seq_lens=[128], policies=["full"], networks=["wan", thin]))
    assert [cell.comparison for cell in cells] == ["dcf", "prefix"]
    assert [job_of(cell, show_text=False)["options"]["comparison"] for cell in cells] == ["dcf", "prefix"]
    forced = expand(
        experiment(engines=["fss"], seq_lens=[128], policies=["full"], networks=["wan"], comparison="prefix")
    )
    assert forced[0].comparison == "prefix"
    assert forced[0].id != cells[0].id


def test_stored_randomness_is_another_cell_of_fss_and_changes_nothing_for_crypten() -> None:
    fss, crypten = (
        [expand(experiment(engines=[engine], offline=offline))[0] for offline in ("streamed", "stored")]
        for engine in ("fss", "crypten")
    )
    assert fss[0].id != fss[1].id
    assert job_of(fss[1], show_text=False)["options"]["offline"] == "stored"
    assert crypten[0].id == crypten[1].id
    assert crypten[1].offline == "streamed"


@pytest.mark.parametrize("key", ["offline", "comparison"])
def test_a_bad_choice_is_named(key: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=key):
        experiment(**{key: "sideways"})
