"""Cells of the engine as the parties run them, through the interface of every engine."""

from typing import Any

import pytest

from tests.helpers.four import Four

ONCE_A_LAYER = ("qkv", "out_proj", "gate_up", "down")


def job(policy: str = "full", **changes: Any) -> dict[str, Any]:
    parameters = {"fine_size": 4, "coarse_size": 8} if policy == "mpcache" else {}
    return {
        "engine": "fss", "model": "random:tiny-llama", "policy": {"name": policy, **parameters},
        "prompt": {"random_tokens": True}, "seq_len": 40, "new_tokens": 2, **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def cells() -> Any:
    """Runs several cells on the same parties: the model is installed once, with one set of seeds."""
    wanted = {
        "full": job(),
        "again": job(),
        "mpcache": job("mpcache"),
        "logits_to_client": job(options={"argmax": "client"}, show_text=True),
        "other_model": job(model="random:tiny-gpt2"),
    }
    with Four() as four:
        yield {name: whole(four, cell) for name, cell in wanted.items()}


def whole(four: Four, cell: dict[str, Any]) -> dict[str, Any]:
    """Each role's result of a run without a truncation failure, which occurs in one of a hundred runs."""
    for _ in range(5):
        by_role = {role: results[0] for role, results in four.run(cell).items()}
        if len({stages(by_role["client"], "online")[stage]["rounds"] for stage in ONCE_A_LAYER}) == 1:
            break
    return by_role


def stages(result: dict[str, Any], phase: str) -> dict[str, dict[str, Any]]:
    return {stage["stage"]: stage for stage in result["stages"] if stage["phase"] == phase}


@pytest.mark.parametrize("name", ["full", "again", "mpcache", "logits_to_client", "other_model"])
def test_private_cells_are_correct(cells: Any, name: str) -> None:
    check = cells[name]["referee"]["check"]
    assert check["tokens_match"]
    assert 0 < check["max_abs_logit_error"] < 0.1
    assert check["tokens_compared"] == 2


def test_bytes_sent_and_received_agree_in_every_stage(cells: Any) -> None:
    for name in ("full", "mpcache"):
        mine, theirs = (stages(cells[name][role], "online") for role in ("client", "server"))
        assert mine.keys() == theirs.keys()
        for stage in mine.keys() - {"argmax"}:
            assert mine[stage]["sent_bytes"] == theirs[stage]["received_bytes"]
            assert mine[stage]["rounds"] == theirs[stage]["rounds"]


def test_the_dealers_traffic_is_offline_and_arrives(cells: Any) -> None:
    dealt = stages(cells["full"]["dealer"], "offline")["offline.material"]
    taken = [stages(cells["full"][role], "offline")["offline.material"] for role in ("client", "server")]
    asked = taken[0]["sent_bytes"]
    assert dealt["sent_bytes"] == sum(side["received_bytes"] for side in taken) > 1e6
    assert asked < 5000, "the client sends the dealer public numbers, and which segments are run again"
    assert taken[1]["sent_bytes"] < 200, "the server sends its credit"
    assert not stages(cells["full"]["dealer"], "online")


def test_a_layer_takes_17_rounds_with_the_full_cache(cells: Any) -> None:
    online = stages(cells["full"]["client"], "online")
    layers = {stage: online[stage]["rounds"] for stage in ONCE_A_LAYER}
    count = layers["qkv"]
    assert set(layers.values()) == {count}
    once = sum(online[stage]["rounds"] for stage in ("embed", "lm_head", "argmax"))
    norms = online["norm"]["rounds"]
    tokens = (norms - 4 * count) / 3  # the final norm of each attempt
    total = sum(stage["rounds"] for stage in online.values()) - once - 3 * tokens
    assert total == 17 * count


def test_weights_are_masked_once_for_all_cells_of_a_model(cells: Any) -> None:
    assert "setup.weights" in stages(cells["full"]["server"], "setup")
    assert "setup.weights" not in stages(cells["again"]["server"], "setup")
    assert "setup.weights" in stages(cells["other_model"]["server"], "setup")


@pytest.mark.slow
@pytest.mark.model
def test_smollm2_decodes_like_the_plain_engine(tmp_path: Any) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("The library opened in 1911 and burned down twice; the third building still stands. " * 4)
    with Four(timeout_s=300) as four:
        for policy in ("full", "mpcache"):
            cell = job(policy, model="smollm2-135m", prompt={"text_file": str(prompt)}, seq_len=64, new_tokens=2)
            check = four.run(cell)["referee"][0]["check"]
            assert check["tokens_match"]
            assert check["median_abs_logit_error"] <= 0.05
