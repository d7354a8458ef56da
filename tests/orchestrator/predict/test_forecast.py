from typing import Any

from orchestrator.experiment.link_time import PARTIES
from orchestrator.predict.forecast import forecast
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
