"""A dry run reports all errors that it can detect at once, before any cell."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from orchestrator.cli import main
from orchestrator.experiment.cells import expand
from orchestrator.experiment.experiment import load_experiment
from orchestrator.experiment.problems import ConfigError
from orchestrator.run.inputs import require_inputs
from parties.heads import save_head
from parties.heads.untrained import random_head
from parties.models import load_spec, load_weights
from tests.helpers.saved_models import save, tiny_llama


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tiny_llama(tied=True), tmp_path_factory.mktemp("model"))


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in saved.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def write(folder: Path, **changes: Any) -> Path:
    values = {
        "name": "inputs",
        "model": "random:tiny-llama",
        "prompt": {"random_tokens": True},
        "engines": ["plain", "fss"],
        "policies": ["full"],
        "seq_lens": [16, 32],
        **changes,
    }
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def problems(path: Path, *, elsewhere: bool = False) -> dict[str, str]:
    try:
        require_inputs(expand(load_experiment(path)), path, elsewhere=elsewhere)
    except ConfigError as error:
        return {problem.path: problem.allowed for problem in error.problems}
    return {}


@pytest.mark.parametrize("arguments", [["--dry-run"], []])
def test_a_prompt_that_is_too_short_for_the_longest_cell_is_refused_before_any_runs(
    tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "short.txt").write_text("orange-otter, a prompt", encoding="utf-8")
    path = write(tmp_path, prompt={"text_file": "short.txt"})
    done = CliRunner().invoke(main.app, ["run", str(path), "--out", str(tmp_path / "out"), *arguments])
    assert done.exit_code == 2
    assert "short.txt: the text has 22 tokens, seq_len asks for 32" in done.output
    assert "orange-otter" not in done.output
    assert not (tmp_path / "out").exists()


def test_a_prompt_that_is_long_enough_for_the_longest_cell_passes(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("x" * 32, encoding="utf-8")
    assert problems(write(tmp_path, prompt={"text_file": "long.txt"})) == {}


def test_a_chat_must_fit_the_longest_and_the_shortest_cell(tmp_path: Path, model: Path) -> None:
    (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}|the answer is:")
    prompt = {"messages": [{"role": "user", "content": "x" * 20}]}
    assert problems(write(tmp_path, model=str(model), prompt=prompt)) == {}
    for seq_lens in ([16, 36], [15, 32]):  # of 1 to 20 letters and 15 of the template
        found = problems(write(tmp_path, model=str(model), prompt=prompt, seq_lens=seq_lens))
        assert list(found) == ["prompt.messages"]
    (model / "chat_template.jinja").unlink()
    assert list(problems(write(tmp_path, model=str(model), prompt=prompt))) == ["prompt.messages"]


def test_a_whole_model_passes(tmp_path: Path, model: Path) -> None:
    assert problems(write(tmp_path, model=str(model))) == {}


def break_weights(model: Path, how: str) -> None:
    file = model / "model.safetensors"
    tensors = load_file(file)
    if how == "missing":
        file.unlink()
    elif how == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif how == "without a tensor":
        save_file({name: t for name, t in tensors.items() if "layers.2.mlp.up_proj" not in name}, file)
    elif how == "of another shape":
        save_file({name: t[:-1] if "down_proj" in name else t for name, t in tensors.items()}, file)
    else:
        placed = dict.fromkeys(tensors, "model-00001-of-00001.safetensors")
        (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))


@pytest.mark.parametrize(
    "how", ["missing", "truncated", "without a tensor", "of another shape", "in a part that is not there"]
)
def test_weights_that_cannot_be_loaded_are_refused(tmp_path: Path, model: Path, how: str) -> None:
    break_weights(model, how)
    path = write(tmp_path, model=str(model))
    assert list(problems(path)) == ["model"]
    assert problems(path, elsewhere=True) == {}  # the hosts of a cluster may have them


def test_all_errors_are_reported_at_once(tmp_path: Path, model: Path) -> None:
    break_weights(model, "missing")
    (model / "tokenizer.json").write_text("{}")
    path = write(tmp_path, model=str(model), policies=["full", {"name": "locret", "head": "nowhere"}])
    with pytest.raises(ConfigError) as caught:
        require_inputs(expand(load_experiment(path)), path, elsewhere=False)
    assert [problem.path for problem in caught.value.problems] == ["model", "policies.locret.head", "model"]
    for expected in ("has neither model.safetensors nor", "nowhere cannot be read", "tokenizer"):
        assert expected in str(caught.value)


def test_a_prompt_is_measured_on_a_cluster_too_where_the_tokenizer_is_here(tmp_path: Path, model: Path) -> None:
    break_weights(model, "missing")
    (tmp_path / "short.txt").write_text("short", encoding="utf-8")
    path = write(tmp_path, model=str(model), prompt={"text_file": "short.txt"})
    assert list(problems(path, elsewhere=True)) == ["prompt.text_file"]
    (model / "tokenizer.json").unlink()
    assert problems(path, elsewhere=True) == {}


def test_heads_must_have_the_shape_of_the_model(tmp_path: Path) -> None:
    model, other = "random:tiny-llama", "random:llama?layers=2"
    head = random_head("locret", load_spec(model), load_weights(model))
    save_head(head, tmp_path / "good.safetensors")
    save_head(random_head("locret", load_spec(other), load_weights(other)), tmp_path / "bad.safetensors")
    save_head(replace(head, kind="attention_gate"), tmp_path / "kind.safetensors")
    found = {}
    for name in ("good", "bad", "kind"):
        policy = {"name": "locret", "head": str(tmp_path / f"{name}.safetensors")}
        found[name] = list(problems(write(tmp_path, policies=[policy], prefill="mpc")))
    assert found == {"good": [], "bad": ["policies.locret.head"], "kind": ["policies.locret.head"]}


@pytest.mark.parametrize("way", ["--address", "RAY_ADDRESS"])
def test_a_run_on_a_cluster_leaves_missing_files_to_the_parties(
    tmp_path: Path, model: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_weights(model, "missing")
    path = write(tmp_path, model=str(model))
    arguments = ["run", str(path), "--out", str(tmp_path / "out"), "--dry-run"]
    monkeypatch.delitem(os.environ, "RAY_ADDRESS", raising=False)
    assert CliRunner().invoke(main.app, arguments).exit_code == 2
    if way == "RAY_ADDRESS":
        monkeypatch.setitem(os.environ, way, "192.0.2.1:6379")
    else:
        arguments += [way, "192.0.2.1:6379"]
    assert CliRunner().invoke(main.app, arguments).exit_code == 0
