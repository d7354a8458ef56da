"""Training from texts to heads: seeds, interruptions, written files, and early errors."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from orchestrator.training.session import Request, make_heads
from orchestrator.training.settings import TrainingError
from parties.errors import ModelError
from parties.heads import HeadError, fingerprint, load_head
from parties.models import load_spec, load_weights
from tests.helpers.small_training import KINDS, MODEL, request, settings, silent, write_text

pytestmark = pytest.mark.slow


class StopError(Exception):
    """Interrupts a training."""


def stop_after(done: float) -> Any:
    def show(what: str, now: float, *_: Any) -> None:
        if what == "training" and now > done:
            raise StopError

    return show


def made(folder: Path, kind: Any = "locret", changes: Any = None, **asked: Any) -> dict[str, torch.Tensor]:
    folder.mkdir(exist_ok=True)
    wanted = request(folder, **asked)
    make_heads(wanted, settings(kind, **(changes or {})), silent)
    return load_file(wanted.out)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_give_equal_heads_and_other_seeds_others(kind: Any, tmp_path: Path) -> None:
    first = made(tmp_path / "a", kind)
    assert same(first, made(tmp_path / "b", kind))
    assert not same(first, made(tmp_path / "c", kind, {"seed": 1}))


@pytest.mark.parametrize("kind", KINDS)
def test_heads_are_half_precision_and_fit_their_model(kind: Any, tmp_path: Path) -> None:
    assert {tensor.dtype for tensor in made(tmp_path, kind).values()} == {torch.float16}
    path, spec = str(tmp_path / "heads.safetensors"), load_spec(MODEL)
    head = load_head(path, kind, spec, fingerprint(spec, load_weights(MODEL)))
    assert (head.kind, head.model, head.width) == (kind, MODEL, 4)
    other = f"{MODEL}&seed=1"
    with pytest.raises(HeadError, match="was trained for the model"):
        load_head(path, kind, spec, fingerprint(spec, load_weights(other)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("done", [9, 13], ids=["while it looks", "while it learns"])
def test_an_interrupted_training_resumes_to_the_same_heads(kind: Any, done: float, tmp_path: Path) -> None:
    whole = made(tmp_path / "whole", kind)
    (tmp_path / "cut").mkdir()
    wanted = request(tmp_path / "cut")
    with pytest.raises(StopError):
        make_heads(wanted, settings(kind), stop_after(done))
    assert [path.name for path in sorted(wanted.out.parent.iterdir())] == ["heads.checkpoint", "text.txt"]
    with pytest.raises(
        TrainingError, match=r"heads.checkpoint is of an unfinished training; continue it with --resume"
    ):
        make_heads(wanted, settings(kind), silent)
    run, _ = make_heads(request(tmp_path / "cut", resume=True), settings(kind), silent)
    assert same(whole, load_file(wanted.out))
    assert run.step == 24
    assert len(run.history) == 3
    assert not wanted.checkpoint.exists()


def cut(folder: Path) -> Request:
    """A training that was interrupted after its first block."""
    wanted = request(folder, resume=True)
    with pytest.raises(StopError):
        make_heads(request(folder), settings(), stop_after(9))
    return wanted


def test_a_checkpoint_of_another_training_is_refused_with_the_difference(tmp_path: Path) -> None:
    wanted = cut(tmp_path)
    with pytest.raises(TrainingError, match="was trained with settings"):
        make_heads(wanted, settings(seed=5), silent)
    with pytest.raises(TrainingError, match="was trained with model"):
        make_heads(request(tmp_path, resume=True, model=f"{MODEL}&seed=1"), settings(), silent)
    other = write_text(tmp_path, "other.txt", words=500)
    with pytest.raises(TrainingError, match="was trained with texts"):
        make_heads(request(tmp_path, resume=True, texts=[other]), settings(), silent)


@pytest.mark.parametrize("kept", [0, 7, 200, -1])
def test_a_truncated_checkpoint_is_refused(kept: int, tmp_path: Path) -> None:
    wanted = cut(tmp_path)
    wanted.checkpoint.write_bytes(wanted.checkpoint.read_bytes()[:kept])
    with pytest.raises(TrainingError, match=r"heads.checkpoint cannot be read: .* remove it to begin again"):
        make_heads(wanted, settings(), silent)


def test_heads_are_not_a_checkpoint(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / "heads.safetensors").rename(tmp_path / "heads.checkpoint")
    with pytest.raises(TrainingError, match="is not a checkpoint of this version"):
        make_heads(request(tmp_path, resume=True), settings(), silent)


def test_resume_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"resume: there is no checkpoint .*; leave --resume out"):
        make_heads(request(tmp_path, resume=True), settings(), silent)


def test_the_card_quotes_the_command_that_makes_the_heads(tmp_path: Path) -> None:
    held_out = write_text(tmp_path, "held.txt", words=300)
    asked = {"held_out": [held_out], "command": "mpcache-bench train locret ...", "licence": "Apache-2.0"}
    made(tmp_path, changes={"seed": 3}, **asked)
    text = (tmp_path / "heads.md").read_text()
    with safe_open(tmp_path / "heads.safetensors", framework="pt") as file:
        assert file.metadata()["fingerprint"] in text
    assert "mpcache-bench train locret ..." in text
    assert "seed 3" in text
    assert "Licence: Apache-2.0" in text
    assert "24 steps on 12 windows of 32 tokens, 384 in all" in text
    for row in ("| text.txt | training |", "| held.txt | recall |", "| steps | regression | smoothing |", "| 24 | "):
        assert row in text
    for policy in ("random", "streaming_llm", "h2o", "snapkv", "locret"):
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {policy} |")]
        assert all(0 <= float(cell) <= 1 for cell in row.strip("| ").split(" | ")[1:])


def test_without_held_out_text_the_card_states_that_nothing_was_measured(tmp_path: Path) -> None:
    made(tmp_path)
    assert "Not measured; `--held-out FILE` measures it." in (tmp_path / "heads.md").read_text()


def test_text_that_is_trained_with_is_not_held_out(tmp_path: Path) -> None:
    copy = tmp_path / "copy.txt"
    copy.write_bytes(write_text(tmp_path).read_bytes())
    with pytest.raises(TrainingError, match=r"held-out: copy.txt is also a training text"):
        make_heads(request(tmp_path, held_out=[copy]), settings(), silent)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_trains_as_the_cpu_does_but_for_rounding(kind: Any, tmp_path: Path) -> None:
    history = {}
    for device in ("cpu", "cuda"):
        out = {"out": tmp_path / f"{device}.safetensors", "device": device}
        run, recall = make_heads(
            request(tmp_path, held_out=[write_text(tmp_path, "b.txt", 300)], **out), settings(kind), silent
        )
        history[device] = run.history[0]
        assert recall
    assert history["cuda"] == pytest.approx(history["cpu"], rel=0.05)


def test_a_path_that_cannot_be_written_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    nowhere = {"model": "no such model"}
    with pytest.raises(TrainingError, match=r"out: .*heads.bin must end in .safetensors"):
        make_heads(request(tmp_path, out=tmp_path / "heads.bin", **nowhere), settings(), silent)
    with pytest.raises(TrainingError, match=r"out: cannot write .*: No such file or directory"):
        make_heads(request(tmp_path, out=tmp_path / "none" / "heads.safetensors", **nowhere), settings(), silent)
    taken = tmp_path / "heads.safetensors"
    taken.write_bytes(b"mine")
    with pytest.raises(TrainingError, match="exists already"):
        make_heads(request(tmp_path, **nowhere), settings(), silent)
    assert taken.read_bytes() == b"mine"


def test_models_devices_and_lengths_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="'no such model' does not exist"):
        make_heads(request(tmp_path, model="no such model"), settings(), silent)
    with pytest.raises(TrainingError, match="windows of 2049 tokens, but the model has 2048 positions"):
        make_heads(request(tmp_path), settings(context=2041), silent)
    with pytest.raises(TrainingError, match="device: 'tpu' is not available"):
        make_heads(request(tmp_path, device="tpu"), settings(), silent)
    if not torch.cuda.is_available():
        with pytest.raises(TrainingError, match="device: 'cuda' is not available"):
            make_heads(request(tmp_path, device="cuda"), settings(), silent)
    assert not (tmp_path / "heads.safetensors").exists()
    assert json.loads(json.dumps(settings().to_json())) == settings().to_json()
