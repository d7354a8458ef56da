from typing import Any

import pytest

from orchestrator.experiment.experiment import model_spec
from orchestrator.experiment.link_time import PARTIES
from orchestrator.predict.forecast import forecast
from parties.models.random_model import SHAPES
from tests.helpers import samples


def fss(**changes: Any) -> Any:
    return samples.cell(**{"engines": ["fss"], "seq_lens": [24], **changes})


def test_stages_sum_to_the_totals_of_both_parties() -> None:
    for cost in (forecast(fss()).decode, forecast(fss(prefill="mpc")).prefill):
        assert cost is not None
        assert sum(stage.rounds for stage in cost.stages) == cost.rounds > 0
        for role in PARTIES:
            assert sum(stage.sent[role] for stage in cost.stages) == cost.sent[role] > 0


def test_the_cost_of_a_cell_does_not_depend_on_its_links_or_repeats() -> None:
    cells = [fss(networks=[network], repeats=2) for network in ("none", "wan")]
    assert forecast(cells[0]) is forecast(cells[1])


def test_rounds_do_not_depend_on_the_length_but_bytes_do() -> None:
    short, long = (forecast(fss(seq_lens=[n])).decode for n in (24, 96))
    assert short.rounds == long.rounds
    assert short.sent["client"] < long.sent["client"]
    assert short.dealt["server"] < long.dealt["server"]


@pytest.mark.parametrize(("engine", "policy"), [("fss", "full"), ("fss", "tova"), ("crypten", "mpcache")])
def test_a_batch_shares_rounds_and_not_bytes(engine: str, policy: str) -> None:
    one, four = (forecast(fss(engines=[engine], policies=[policy], batch=batch)).decode for batch in (1, 4))
    assert one.rounds == four.rounds
    assert one.sent["client"] < four.sent["client"] < 4 * one.sent["client"]
    assert 3.5 * one.dealt["client"] < four.dealt["client"] <= 4 * one.dealt["client"]


def test_crypten_attends_one_sequence_after_the_other_where_a_policy_mixes_heads() -> None:
    one, four = (forecast(samples.cell(policies=["tova"], batch=batch)).decode for batch in (1, 4))
    assert one.rounds < four.rounds < 4 * one.rounds


def test_the_cost_of_lines_is_that_of_the_longest_that_they_may_be() -> None:
    lines = {"text_file": "a.txt", "lines": True}
    assert forecast(fss(prompt=lines)).decode == forecast(fss()).decode
    assert not forecast(fss(prompt=lines)).exact


def test_logits_to_the_client_cost_the_server_one_message_instead_of_a_tournament() -> None:
    private, client = (forecast(fss(argmax=argmax)).decode for argmax in ("private", "client"))
    assert client.rounds < private.rounds
    assert sum(client.dealt.values()) < sum(private.dealt.values())


def test_only_fss_is_exact_and_only_a_dry_run_covers_the_prompt() -> None:
    assert forecast(fss()).exact
    assert forecast(fss(prefill="mpc")).prefill is not None
    assert forecast(fss()).prefill is None
    assert not forecast(samples.cell()).exact
    assert forecast(samples.cell(prefill="mpc")).prefill is None


def test_the_comparison_protocol_changes_rounds_and_randomness() -> None:
    dcf, carry = (forecast(fss(comparison=comparison)).decode for comparison in ("dcf", "prefix"))
    assert dcf.rounds < carry.rounds
    assert dcf.dealt["client"] > carry.dealt["client"] == 24


@pytest.mark.slow
@pytest.mark.parametrize("model", [name for name in SHAPES if not name.startswith("tiny-")])
def test_published_models_have_a_cost_without_weights(model: str) -> None:
    for engine in ("fss", "crypten"):
        cost = forecast(samples.cell(model=f"random:{model}", engines=[engine], seq_lens=[1000], new_tokens=1)).decode
        spec = model_spec(f"random:{model}")
        assert cost.rounds > 4 * spec.n_layers
        assert cost.sent["client"] > 8 * spec.n_layers * spec.hidden


def test_more_norms_and_caps_cost_more_in_both_engines() -> None:
    for engine in ("fss", "crypten"):
        plain, norms, caps = (
            forecast(fss(model=f"random:tiny-{family}", engines=[engine], policies=["full"])).decode
            for family in ("qwen2", "qwen3", "gemma2")
        )
        assert plain.rounds < norms.rounds < caps.rounds
