"""Cells whose prompts decode side by side, as the parties run them."""

from typing import Any

import pytest

from tests.helpers.four import Four

pytestmark = pytest.mark.slow

LINES = """A first prompt, of one line.

Another one, which is quite a bit longer than the first.
Short.
"""
LENGTHS = {"full of lines": 3, "inside": 2, "crypten": 2, "mpcache": 3}


def job(batch: int, prompt: dict[str, Any], policy: str = "full", **changes: Any) -> dict[str, Any]:
    parameters = {"fine_size": 4, "coarse_size": 8} if policy == "mpcache" else {}
    return {
        "engine": "fss", "model": "random:tiny-llama", "policy": {"name": policy, **parameters}, "prompt": prompt,
        "seq_len": 40, "new_tokens": 6, "batch": batch, "seed": 1, **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("prompts") / "lines.txt"
    path.write_text(LINES)
    lines, random = {"text_file": str(path), "lines": True}, {"random_tokens": True}
    wanted = {
        "full of lines": job(3, lines),
        "mpcache": job(3, random, "mpcache"),
        "inside": job(2, lines, options={"prefill": "mpc"}, new_tokens=2),
        "crypten": job(2, lines, engine="crypten", new_tokens=1),
        "plain": job(2, lines, engine="plain", show_text=True),
    }
    with Four() as four:
        return {name: {role: outcomes[0] for role, outcomes in four.run(cell).items()} for name, cell in wanted.items()}


@pytest.mark.parametrize("name", LENGTHS)
def test_each_sequence_is_checked(cells: Any, name: str) -> None:
    check = cells[name]["referee"]["check"]
    assert len(check["sequences"]) == LENGTHS[name]
    for sequence in check["sequences"]:
        assert sequence["tokens_match"]
        assert 0 < sequence["max_abs_logit_error"] < (check["tolerance"] if name == "crypten" else 0.1)
    assert check["tokens_match"]
    assert check["tokens_compared"] == sum(sequence["tokens_compared"] for sequence in check["sequences"])
    assert check["max_abs_logit_error"] == max(sequence["max_abs_logit_error"] for sequence in check["sequences"])


def test_layers_of_a_batch_are_recorded_and_replayed_also_where_lengths_differ(cells: Any) -> None:
    for role in ("client", "server"):
        assert cells["mpcache"][role]["replayed_segments"] > 0
        assert cells["full of lines"][role]["replayed_segments"] > cells["full of lines"][role]["interpreted_segments"]


def test_each_sequence_has_a_text_of_its_own(cells: Any) -> None:
    assert len(cells["plain"]["referee"]["text"].split("\n")) >= 2
    assert cells["plain"]["referee"]["tokens"] == 6
