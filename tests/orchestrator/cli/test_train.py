"""The command `train`: a real Ctrl-C, resuming, and errors of bad input."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from orchestrator.cli.common import ExitCode
from orchestrator.cli.main import app
from tests.helpers.waiting import PATIENCE_S

pytestmark = pytest.mark.slow

MODEL = "random:tiny-llama?layers=2"
# Presses Ctrl-C in the middle of the third block of 24 steps.
INTERRUPTED = """
import os, signal
from orchestrator.cli.main import main
from orchestrator.training import session

honest = session.train

def train(task, windows, run, after_block, tick):
    def pressing(done):
        tick(done)
        if done == 65:
            os.kill(os.getpid(), signal.SIGINT)

    honest(task, windows, run, after_block, pressing)

session.train = train
main()
"""


def words(folder: Path, *more: Any, **changes: Any) -> list[str]:
    text = folder / "text.txt"
    text.write_text(" ".join(f"word{i * 37 % 101}" for i in range(9000)))
    options = {"model": MODEL, "text": text, "out": folder / "heads.safetensors", "device": "cpu", "windows": 24}
    options |= {"context": 24, "answer": 8, **changes}
    return ["train", "locret", *(str(w) for name, value in options.items() for w in (f"--{name}", value)), *more]


def output_of(arguments: list[str], code: int) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result.output


def test_heads_their_card_and_their_recall(tmp_path: Path) -> None:
    held_out = tmp_path / "held.txt"
    held_out.write_text("some other words " * 40)
    text = output_of(words(tmp_path, "--held-out", str(held_out), "--seed", "3", "--width", "4"), ExitCode.OK)
    assert "snapkv" in text
    assert "locret" in text
    assert "48 steps in " in text
    assert "seed 3" in (tmp_path / "heads.md").read_text()
    assert load_file(tmp_path / "heads.safetensors")["layers.1.out"].shape == (4, 2)


def test_ctrl_c_leaves_a_checkpoint_from_which_the_same_heads_come(tmp_path: Path) -> None:
    (tmp_path / "cut").mkdir()
    long = {"windows": 60}
    output_of(words(tmp_path, **long), ExitCode.OK)
    arguments = words(tmp_path / "cut", **long)
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == ExitCode.INTERRUPTED, done.stderr
    assert "--resume continues from the last checkpoint" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["heads.checkpoint", "text.txt"]
    output_of([*arguments, "--resume"], ExitCode.OK)
    one, other = (load_file(folder / "heads.safetensors") for folder in (tmp_path, tmp_path / "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "model": ({"model": "no-such-model.gguf"}, "'no-such-model.gguf' does not exist"),
    "text": ({"text": "nowhere.txt"}, "text: nowhere.txt cannot be read"),
    "long": ({"context": 99_999}, "windows of 100007 tokens, but the model has 2048 positions"),
    "windows": ({"windows": 99_999}, "but the texts have"),
    "keep": ({"keep": 1.5}, "keep: 1.5 is not possible; it must be a share between 0 and 1"),
    "repeats": ({"repeats": 0}, "repeats: 0 is not possible"),
    "rate": ({"learning-rate": -1}, "learning_rate: -1.0 is not possible"),
    "out": ({"out": "heads.bin"}, "out: heads.bin must end in .safetensors"),
    "device": ({"device": "tpu"}, "'tpu' is not one of"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_by_name_before_anything_is_written(name: str, tmp_path: Path) -> None:
    changes, expected = BAD[name]
    message = output_of(words(tmp_path, **changes), ExitCode.BAD_INPUT)
    assert expected in " ".join(message.replace("│", " ").split())
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


@pytest.mark.parametrize("content", [b"", b"a few words", b"\xff\xfe"])
def test_text_that_is_empty_short_or_not_utf_8_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    arguments = words(tmp_path)
    (tmp_path / "text.txt").write_bytes(content)
    message = output_of(arguments, ExitCode.BAD_INPUT)
    assert (
        "text.txt cannot be read: it is not UTF-8" in message
        if content[:1] == b"\xff"
        else f"text.txt has {len(content)} tokens" in message
    )


def test_an_unknown_policy_is_refused() -> None:
    assert "'quest' is not one of" in output_of(
        ["train", "quest", "--model", "m", "--text", "t", "--out", "o"], ExitCode.BAD_INPUT
    )
