"""`use: auto` of a policy that selects is resolved by the links of the cell, and the cell says what was chosen."""

from typing import Any

import pytest

from orchestrator.experiment.cells import expand
from orchestrator.predict.forecast import forecast
from orchestrator.predict.prediction import predict
from tests.helpers.samples import experiment

AHEAD = {"name": "mpcache", "ahead": True}


def cell_of(network: Any, use: str = "auto", engine: str = "fss", **more: Any) -> Any:
    policies = [{**AHEAD, "use": use, **more}]
    return expand(
        experiment(
            model="smollm2-135m",
            engines=[engine],
            policies=policies,
            seq_lens=[1024],
            new_tokens=1,
            networks=[network],
        )
    )[0]


@pytest.mark.parametrize(("network", "use"), [("lan", "scores"), ("wan", "rows"), ("none", "scores")])
def test_a_slow_round_or_a_slow_byte_decides(network: str, use: str) -> None:
    chosen, forced = cell_of(network), cell_of(network, use)
    assert chosen.policy.build().use == use
    assert chosen.id == forced.id, "the chosen value is what the record has"


def test_a_cell_that_does_not_ask_has_the_id_that_it_had() -> None:
    assert cell_of("wan", "scores").policy.parameters == cell_of("wan", engine="plain").policy.parameters
    assert "use" not in cell_of("lan").policy.parameters


@pytest.mark.slow
@pytest.mark.parametrize("network", ["lan", "wan"])
def test_what_is_chosen_is_predicted_to_be_faster(network: str) -> None:
    seconds = {use: predict(cell_of(network, use)).decode_seconds for use in ("scores", "rows")}
    assert cell_of(network).policy.build().use == min(seconds, key=lambda use: seconds[use])


@pytest.mark.slow
def test_rows_take_as_many_rounds_as_the_full_cache() -> None:
    full = forecast(cell_of("wan").model_copy(update={"policy": cell_of("wan").policy.__class__(name="full")}))
    rows = forecast(cell_of("wan", "rows"))
    assert rows.decode.rounds == full.decode.rounds
