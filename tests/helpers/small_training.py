"""Short trainings: a tiny random model, one byte per token, and text with a pattern to learn."""

from pathlib import Path
from typing import Any

from orchestrator.training.backbone import Backbone
from orchestrator.training.session import TASKS, Request
from orchestrator.training.settings import Settings
from orchestrator.training.task import Task

MODEL = "random:tiny-llama?layers=2"
KINDS: Any = ("locret", "attention_gate")


def settings(kind: Any = "locret", **changes: Any) -> Settings:
    """Three blocks of four windows, of which each is used twice."""
    small = {"windows": 12, "context": 24, "answer": 8, "block": 4, "width": 4}
    return Settings.of(kind, **{**small, **changes})


def write_text(folder: Path, name: str = "text.txt", words: int = 400) -> Path:
    """A file of numbered words."""
    path = folder / name
    path.write_text(" ".join(f"word{i * 37 % 101}" for i in range(words)), encoding="utf-8")
    return path


def task(kind: Any, model: str = MODEL, **changes: Any) -> Task:
    """A training task on a model of its own."""
    return TASKS[kind](Backbone(model), settings(kind, **changes))


def request(folder: Path, **changes: Any) -> Request:
    """A request that writes into a folder."""
    texts = changes.pop("texts", None) or [write_text(folder)]
    return Request(**{"model": MODEL, "texts": texts, "out": folder / "heads.safetensors", "device": "cpu", **changes})


def silent(*_: Any) -> None:
    """Shows nothing."""
