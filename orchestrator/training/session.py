"""Trains heads on texts and writes them with their card."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from orchestrator.training.attention_gate import AttentionGateTask
from orchestrator.training.backbone import Backbone
from orchestrator.training.card import TrainedHeads, card
from orchestrator.training.checkpoint import restore, save_checkpoint
from orchestrator.training.files import check_folder, write_file
from orchestrator.training.locret import LocretTask
from orchestrator.training.loop import Run, begin, train
from orchestrator.training.recall import Recall, measure
from orchestrator.training.settings import Settings, TrainingError
from orchestrator.training.task import Task
from orchestrator.training.windows import Text, draw, read_text
from parties.heads.format import save_head

TASKS: dict[str, type[Task]] = {task.kind: task for task in (LocretTask, AttentionGateTask)}
RECALL_WINDOWS = 12


@dataclass(frozen=True)
class Request:
    """The inputs and outputs of a training.

    Attributes:
        model: A model source.
        texts: Training texts.
        out: The file of heads to write; its card has the same name and ends in `.md`.
        held_out: Held-out texts for recall; without any, recall is not measured.
        licence: The licence of the heads, for the card.
        command: The command line of the user, for the card.
        device: `auto`, `cpu` or `cuda`.
        resume: Whether to resume from the checkpoint next to `out`.
    """

    model: str
    texts: Sequence[Path]
    out: Path
    held_out: Sequence[Path] = ()
    licence: str = "not stated"
    command: str = ""
    device: str = "auto"
    resume: bool = False

    @property
    def checkpoint(self) -> Path:
        """Where an unfinished training is kept."""
        return self.out.with_suffix(".checkpoint")


Show = Callable[[str, float, float, dict[str, float]], None]
"""Reports progress: receives the name of the phase, the amount done, the total, and the last losses."""


def make_heads(request: Request, settings: Settings, show: Show) -> tuple[Run, Sequence[Recall]]:
    """Trains heads, with a checkpoint after each block, and writes them and their card.

    Raises:
        TrainingError: An option, a file or the training itself is invalid; the message names it.
        ModelError: The model cannot be read.
    """
    _check_files(request)
    backbone = Backbone(request.model, pick_device(request.device))
    if settings.length > (most := backbone.spec.max_positions):
        raise TrainingError(
            f"context, answer: windows of {settings.length} tokens, but the model has {most} positions; shorten them"
        )
    texts = [read_text(path, backbone.tokenizer, settings.length) for path in request.texts]
    held_out = [read_text(path, backbone.tokenizer, settings.length) for path in request.held_out]
    _check_apart(texts, held_out)
    windows = draw(texts, settings.length, settings.windows, settings.seed)
    identity = {"settings": settings.to_json(), "model": backbone.fingerprint, "texts": [t.sha256 for t in texts]}
    task = TASKS[settings.kind](backbone, settings)
    run = begin(task)
    if request.resume:
        restore(run, identity, request.checkpoint)
    train(
        task,
        windows,
        run,
        lambda now: save_checkpoint(now, identity, request.checkpoint),
        lambda done: show("training", done, settings.steps, run.history[-1] if run.history else {}),
    )
    head, recall, measured = task.head(run.parameters), list[Recall](), 0
    if held_out:
        test = draw(held_out, settings.length, min(RECALL_WINDOWS, _fit(held_out, settings.length)), settings.seed)
        measured = len(test)
        recall = measure(backbone, head, test, settings.context, _counter(show, len(test)))
    write_file(request.out, lambda fresh: save_head(head, fresh))
    size, numbers = request.out.stat().st_size, sum(tensor.numel() for tensor in head.tensors.values())
    made = TrainedHeads(
        request.command, machine(backbone.device), request.model, backbone.fingerprint, settings, texts, held_out,
        measured, recall, request.licence, size, numbers,
    )  # fmt: skip
    write_file(request.out.with_suffix(".md"), lambda fresh: _write(fresh, card(made, run)))
    request.checkpoint.unlink(missing_ok=True)
    return run, recall


def pick_device(name: str) -> str:
    """The device: `auto` is the GPU if there is one, the CPU otherwise."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def machine(device: str) -> str:
    """The hardware, in words."""
    if device == "cuda":
        return f"a GPU ({torch.cuda.get_device_name()})"
    threads = torch.get_num_threads()
    return f"{threads} {'thread' if threads == 1 else 'threads'} of a CPU ({platform.machine()})"


def _check_files(request: Request) -> None:
    """Checks of all files, before the model is loaded."""
    out, kept = request.out, request.checkpoint
    if out.suffix != ".safetensors":
        raise TrainingError(f"out: {out} must end in .safetensors; checkpoint and card take its name")
    check_folder(out)
    if out.exists():
        raise TrainingError(f"out: {out} exists already; choose another file or remove it")
    if not request.texts:
        raise TrainingError("text: no file is given; name at least one file of UTF-8 text")
    if kept.exists() and not request.resume:
        raise TrainingError(f"out: {kept} is of an unfinished training; continue it with --resume, or remove the file")


def _check_apart(texts: Sequence[Text], held_out: Sequence[Text]) -> None:
    """Held-out text must differ from the training text, on which recall is not informative."""
    for text in held_out:
        if text.sha256 in {trained.sha256 for trained in texts}:
            raise TrainingError(f"held-out: {text.name} is also a training text; leave it out of one of them")


def _fit(texts: Sequence[Text], length: int) -> int:
    return sum(len(text.windows(length)) for text in texts)


def _counter(show: Show, count: int) -> Callable[[], None]:
    done = iter(range(1, count + 1))
    return lambda: show("recall", next(done), count, {})


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
