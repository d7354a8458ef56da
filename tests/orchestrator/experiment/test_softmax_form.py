"""`softmax: auto` is resolved by the links of the cell, and the cell says what was chosen."""

from typing import Any

import pytest

from orchestrator.experiment import softmax_form
from orchestrator.experiment.cells import Cell, expand
from orchestrator.predict.forecast import forecast
from orchestrator.predict.local_work import _TYPICAL
from orchestrator.run.runner import job_of
from parties.engines.fss.kernels import cell_trees
from tests.helpers.samples import experiment


def cell_of(network: Any, softmax: str = "auto", engine: str = "fss", **more: Any) -> Cell:
    asked = {"policies": ["full"], "seq_lens": [1024], "new_tokens": 1, **more}
    return expand(experiment(model="smollm2-135m", engines=[engine], networks=[network], softmax=softmax, **asked))[0]


@pytest.mark.parametrize(
    ("network", "form"),
    [("none", "tables"), ("lan", "tables"), ("wan-1g-10ms", "dpf"), ("wan", "dpf"), ("wan-100m-80ms", "dpf")],
)
def test_a_slow_round_decides(network: str, form: str) -> None:
    chosen, forced = cell_of(network), cell_of(network, form)
    assert chosen.softmax == form
    assert chosen.id == forced.id, "the chosen value is what the record has"
    assert job_of(chosen, show_text=False)["options"]["softmax"] == form


def test_many_scores_or_a_slow_dealer_of_stored_keys_make_a_round_worth_less() -> None:
    assert cell_of("wan-1g-10ms", batch=4).softmax == "tables"
    thin = {"name": "mine", "rate_mbit": 1000, "delay_ms": 5, "pairs": {"dealer>server": {"rate_mbit": 100}}}
    assert cell_of(thin).softmax == "dpf"
    assert cell_of(thin, offline="stored").softmax == "tables"


def test_a_cell_that_does_not_ask_has_the_id_that_it_had() -> None:
    default = expand(experiment(engines=["fss"], networks=["wan"], seq_lens=[128], policies=["full"]))[0]
    assert default.softmax == "tables"
    assert default.id == default.model_copy(update={"softmax": "tables"}).id
    assert default.id != default.model_copy(update={"softmax": "dpf"}).id
    assert cell_of("wan", engine="plain").softmax == "tables"
    assert cell_of("wan", "dpf", engine="plain").id == cell_of("wan", engine="plain").id


@pytest.mark.slow
def test_a_layer_takes_a_round_less_and_the_bytes_that_the_choice_counts() -> None:
    tables, counts = (forecast(cell_of("wan", form)).decode for form in ("tables", "dpf"))
    scores, layers = 9 * 1024, 30
    assert tables.rounds - counts.rounds == layers
    opened = (tables.sent["client"] - counts.sent["client"]) / layers
    assert opened == pytest.approx(scores * softmax_form.OPENED_BYTES, rel=0.01)
    dealt = (counts.dealt["server"] - tables.dealt["server"]) / layers
    assert dealt == pytest.approx(scores * softmax_form.DEALT_BYTES, rel=0.12), "sums take some, too"


def test_the_choice_counts_hashes_as_the_prediction_does() -> None:
    assert softmax_form.HASHES == cell_trees.HASHES
    assert _TYPICAL.comparison_levels_per_s == softmax_form.HASHES_PER_S
