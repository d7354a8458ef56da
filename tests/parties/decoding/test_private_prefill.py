"""Cells with `prefill: mpc` as the parties run them: correct, accounted for apart from decoding, nothing handed out."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from parties.roles.job import Job
from tests.helpers.four import Four
from tests.helpers.saved_models import save, tiny_llama

pytestmark = pytest.mark.slow

SEED = 1  # a prompt whose choices of clusters are not near ties: a tie may fall either way, and the tokens with it


def job(engine: str = "fss", policy: str = "full", **changes: Any) -> dict[str, Any]:
    parameters = {"fine_size": 4, "coarse_size": 8} if policy == "mpcache" else {}
    return {
        "engine": engine, "model": "random:tiny-llama", "policy": {"name": policy, **parameters},
        "prompt": {"random_tokens": True}, "seq_len": 40, "new_tokens": 2, "options": {"prefill": "mpc"},
        "seed": SEED, **changes,
    }  # fmt: skip


def large(folder: Path) -> str:
    """A model with numbers beyond the range in which `fss` never truncates them wrongly, but in no other way."""
    model = tiny_llama(tied=True)
    block = model.get_submodule("model.layers.0.mlp")
    with torch.no_grad():
        block.get_parameter("up_proj.weight").mul_(50)
        block.get_parameter("down_proj.weight").div_(50)
    return str(save(model, folder))


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Cells of both engines, with the prompt inside and, for comparison, outside."""
    wanted = {
        "full": job(),
        "mpcache": job(policy="mpcache"),
        "one_token": job(policy="mpcache", seq_len=2),
        "shared": job(options={"prefill": "shared"}),
        "plain": job(engine="plain"),
        "gpt2": job(policy="mpcache", model="random:tiny-gpt2"),
        "crypten": job(engine="crypten", policy="mpcache", seq_len=17),
        "large": job(model=large(tmp_path_factory.mktemp("models")), seq_len=8),
    }
    with Four() as four:
        yield {name: {role: outcomes[0] for role, outcomes in four.run(cell).items()} for name, cell in wanted.items()}


PRIVATE = ("full", "mpcache", "one_token", "gpt2", "crypten")


def spent(stages: list[dict[str, Any]], phase: str, field: str) -> float:
    return sum(stage[field] for stage in stages if stage["phase"] == phase)


@pytest.mark.parametrize("name", PRIVATE)
def test_decoding_after_a_private_prompt_is_correct(cells: Any, name: str) -> None:
    check = cells[name]["referee"]["check"]
    assert check["tokens_match"]
    assert 0 < check["max_abs_logit_error"] < (check["tolerance"] if name == "crypten" else 0.1)
    assert check["tokens_compared"] == 2


def test_possible_truncation_failures_are_reported_with_their_probability(cells: Any) -> None:
    referee = cells["large"]["referee"]
    left = referee["check"]["out_of_range"]
    assert left["number"] in ("output of gate_up", "product")
    assert (left["layer"], left["token"], left["kind"]) == (0, 0, "rare")
    assert 0 < left["chance"] < 1e-4
    assert referee["check"]["tokens_match"], "unlikely is not wrong"
    (warning,) = referee["warnings"]
    assert all(part in warning for part in (left["number"], "of layer 0", "fss", f"{left['chance']:.1e}"))
    assert not any(cells[name]["referee"]["warnings"] for name in PRIVATE)


@pytest.mark.parametrize("name", PRIVATE)
def test_the_prompts_traffic_is_separate_and_agrees_at_both_ends(cells: Any, name: str) -> None:
    mine, theirs, dealt = (cells[name][role]["prefill"]["stages"] for role in ("client", "server", "dealer"))
    assert spent(mine, "online", "sent_bytes") == spent(theirs, "online", "received_bytes") > 0
    assert spent(mine, "online", "rounds") == spent(theirs, "online", "rounds") > 0
    taken = spent(mine, "offline", "received_bytes") + spent(theirs, "offline", "received_bytes")
    assert spent(dealt, "offline", "sent_bytes") == taken > 0
    assert {stage["phase"] for stage in mine + theirs + dealt} <= {"online", "offline"}
    seconds = cells[name]["client"]["prefill"]["seconds"]
    assert 0 < spent(mine, "online", "seconds") <= seconds
    assert not {stage["stage"] for stage in mine} & {"lm_head", "argmax"}, "a prompt predicts nothing"


def test_decoding_costs_the_same_wherever_the_prompt_was_run(cells: Any) -> None:
    inside, outside = ({s["stage"]: s for s in cells[name]["client"]["stages"]} for name in ("full", "shared"))
    for stage in ("embed", "lm_head", "argmax"):
        assert inside[stage]["rounds"] == outside[stage]["rounds"]
        assert inside[stage]["sent_bytes"] == outside[stage]["sent_bytes"]
    dealt = [spent(cells[name]["dealer"]["stages"], "offline", "sent_bytes") for name in ("full", "shared")]
    assert dealt[0] == pytest.approx(dealt[1], rel=0.5), "repeats aside, decoding takes the same material"


def test_stages_of_prompt_and_decoding_make_up_the_cell(cells: Any) -> None:
    for result in cells["mpcache"].values():
        for stage in result["stages"]:
            assert stage["seconds"] >= stage["blocked_seconds"] - 1e-6
            assert min(stage["seconds"], stage["sent_bytes"], stage["rounds"]) >= 0
    decoding = {stage["stage"] for stage in cells["mpcache"]["client"]["stages"]}
    assert "evict" in {stage["stage"] for stage in cells["mpcache"]["client"]["prefill"]["stages"]}
    assert "evict" not in decoding, "a stage that decoding did not use is not in its list"
    assert "lm_head" in decoding


def test_the_referee_hands_out_no_cache(cells: Any) -> None:
    sent = {
        name: sum(s["sent_bytes"] for s in cells[name]["referee"]["stages"] if s["phase"] == "bench")
        for name in ("full", "shared")
    }
    assert sent["full"] < 500 < sent["shared"]


def test_other_cells_report_no_prompt(cells: Any) -> None:
    assert all("prefill" not in result for result in cells["shared"].values())
    assert all("prefill" not in result for result in cells["plain"].values())
    assert "prefill" not in cells["full"]["referee"]


def test_an_unknown_prefill_is_refused() -> None:
    with pytest.raises(ValidationError, match="'shared' or 'mpc'"):
        Job.model_validate(job(options={"prefill": "private"}))
