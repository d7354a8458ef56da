"""Cells as the parties run them: results, reuse, options, metrics, and bad jobs."""

import math
import urllib.request
from typing import Any

import pytest

from parties.errors import AddressInUse
from parties.roles.party import Party
from tests.helpers.four import Four
from tests.helpers.waiting import PATIENCE_S

pytestmark = pytest.mark.slow

MODEL = "random:tiny-llama"


def job(engine: str = "crypten", policy: str = "full", **changes: Any) -> dict[str, Any]:
    parameters = {"fine_size": 4, "coarse_size": 8} if policy == "mpcache" else {}
    return {
        "engine": engine, "model": MODEL, "policy": {"name": policy, **parameters},
        "prompt": {"random_tokens": True}, "seq_len": 40, "new_tokens": 2, **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def cells() -> Any:
    """Several cells on the same parties, one after the other."""
    wanted = {
        "full": job(),
        "mpcache": job(policy="mpcache"),
        "logits_to_client": job(options={"argmax": "client"}, show_text=True),
        "plain": job(engine="plain", policy="mpcache", show_text=True),
        "other_model": job(model="random:tiny-gpt2"),
    }
    with Four() as four:
        yield {name: {role: outcomes[0] for role, outcomes in four.run(cell).items()} for name, cell in wanted.items()}


def stages(result: dict[str, Any], phase: str) -> dict[str, dict[str, Any]]:
    return {stage["stage"]: stage for stage in result["stages"] if stage["phase"] == phase}


@pytest.mark.parametrize("name", ["full", "mpcache", "logits_to_client", "other_model"])
def test_private_cells_are_correct(cells: Any, name: str) -> None:
    check = cells[name]["referee"]["check"]
    assert check["tokens_match"]
    assert 0 < check["max_abs_logit_error"] < check["tolerance"]
    assert check["tokens_compared"] == 2


def test_bytes_sent_and_received_agree(cells: Any) -> None:
    for name in ("full", "mpcache"):
        mine, theirs = (stages(cells[name][role], "online") for role in ("client", "server"))
        for stage in ("qkv", "softmax", "down", "lm_head"):
            assert mine[stage]["sent_bytes"] == theirs[stage]["received_bytes"] > 0
            assert mine[stage]["rounds"] == theirs[stage]["rounds"]


def test_blocked_time_is_part_of_a_stages_time(cells: Any) -> None:
    for result in cells["full"].values():
        for stage in result["stages"]:
            assert stage["blocked_seconds"] <= stage["seconds"] + 1e-6
            assert math.isfinite(stage["seconds"])


def test_weights_are_shared_once_for_all_cells_of_a_model(cells: Any) -> None:
    assert "setup.weights" in stages(cells["full"]["server"], "setup")
    assert "setup.weights" not in stages(cells["mpcache"]["server"], "setup")
    assert "setup.weights" in stages(cells["other_model"]["server"], "setup")


def test_opening_the_logits_to_the_client_saves_the_comparisons(cells: Any) -> None:
    opened = stages(cells["logits_to_client"]["server"], "online")["argmax"]
    private = stages(cells["full"]["server"], "online")["argmax"]
    assert opened["rounds"] == 2 * 0.5
    assert private["rounds"] > 20 * opened["rounds"]
    assert opened["received_bytes"] == 0, "only the client sees them"


def test_text_comes_back_only_on_request_and_only_from_the_client(cells: Any) -> None:
    assert isinstance(cells["logits_to_client"]["client"]["text"], str)
    assert all("text" not in cells["logits_to_client"][role] for role in ("server", "dealer", "referee"))
    assert all("text" not in result for result in cells["full"].values())


def test_a_plain_cell_runs_at_the_referee_alone(cells: Any) -> None:
    plain = cells["plain"]
    assert plain["referee"]["tokens"] == 2
    assert plain["referee"]["decode_seconds"] > 0
    assert "softmax" in stages(plain["referee"], "online")
    assert all(plain[role]["tokens"] == 0 for role in ("client", "server", "dealer"))


def test_a_prompt_that_is_too_short_is_the_clients_error() -> None:
    with Four() as four:
        for role in ("client", "server", "dealer", "referee"):
            four.send(role, job(prompt={"text_file": "/dev/null"}))
        error, _ = four.receive("client")
    assert error["error"] == "PromptError"
    assert "0 tokens, seq_len asks for 40" in error["text"]


def test_metrics_are_served_while_a_party_lives() -> None:
    party = Party("dealer", "127.0.0.1", "session")
    try:
        host, port = party.metrics_address
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=PATIENCE_S) as answer:
            text = answer.read().decode()
        assert 'mpcbench_cell_state{party="dealer"} 0.0\n' in text
        assert party.progress().state == "idle"
    finally:
        party.close()
    assert party.progress().state == "closed"


def test_a_taken_port_is_named() -> None:
    first = Party("client", "127.0.0.1", "session")
    try:
        with pytest.raises(AddressInUse, match=str(first.address[1])):
            Party("server", "127.0.0.1", "session", port=first.address[1])
    finally:
        first.close()
