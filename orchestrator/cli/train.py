"""`mpcache-bench train`: the heads that two of the policies rate tokens with."""

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from orchestrator.cli.common import interruptible, refusing, say, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.training.recall import Recall


class Heads(StrEnum):
    """Policies with heads."""

    LOCRET = "locret"
    ATTENTION_GATE = "attention_gate"


class Device(StrEnum):
    """Where to train."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def train(
    kind: Annotated[Heads, typer.Argument(metavar="POLICY", help="locret or attention_gate.")],
    model: Annotated[str, typer.Option(help="The model, as in an experiment file.")],
    text: Annotated[list[Path], typer.Option(metavar="FILE", help="UTF-8 text; may be given several times.")],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Heads to write, .safetensors; their card is written next to it.")
    ],
    held_out: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Other text to measure recall on, for the card.")
    ] = None,
    device: Annotated[Device, typer.Option(help="auto: the GPU where there is one.")] = Device.AUTO,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint next to --out.")] = False,
    seed: Annotated[int, typer.Option(help="Same seed, same heads.")] = 0,
    windows: Annotated[int, typer.Option(help="Windows of text to train with.")] = 300,
    context: Annotated[int, typer.Option(help="Tokens of a window that the heads rate.")] = 512,
    answer: Annotated[int, typer.Option(help="Tokens after them, which show what should have stayed.")] = 128,
    repeats: Annotated[int, typer.Option(help="Steps with each window.")] = 2,
    width: Annotated[int | None, typer.Option(help="Width of the heads: 32 for locret, 4 for a gate.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Largest one of the schedule.")] = None,
    keep: Annotated[float, typer.Option(help="Share that gates are to let through; attention_gate only.")] = 0.25,
    licence: Annotated[str, typer.Option(help="Licence of the heads, for the card.")] = "not stated",
) -> None:
    """Train the heads of a policy; the model itself is not trained. --resume continues an interrupted training."""
    from orchestrator.training import Settings
    from orchestrator.training.session import Request, make_heads
    from parties.errors import PartyError  # torch comes with training, and most commands do without

    shared: dict[str, Any] = {"seed": seed, "windows": windows, "context": context, "answer": answer}
    shown = Console(stderr=True, highlight=False)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
    )
    interrupted = "interrupted; the same command with --resume continues from the last checkpoint"
    with interruptible(interrupted), refusing(PartyError):
        settings = Settings.of(
            kind.value, width=width, learning_rate=learning_rate, repeats=repeats, keep=keep, **shared
        )
        command = shlex.join(["mpcache-bench", *(word for word in sys.argv[1:] if word != "--resume")])
        request = Request(model, text, out, held_out or (), licence, command, device.value, resume)
        with Progress(TextColumn("{task.description}"), *columns, console=shown) as progress:
            bars: dict[str, Any] = {}

            def progressed(what: str, done: float, total: float, losses: dict[str, float]) -> None:
                words = " ".join(f"{name} {value:.4f}" for name, value in losses.items())
                if what not in bars:
                    bars[what] = progress.add_task(what, total=total, losses="")
                progress.update(bars[what], completed=int(done), losses=words)

            run, recall = make_heads(request, settings, progressed)
    if recall:
        show(_table(recall))
    say(f"{run.step} steps in {run.seconds:.0f} s: {out}, {out.with_suffix('.md')}")


def _table(recall: "Sequence[Recall]") -> Table:
    """Recall by policy and kept share."""
    table = Table("policy", "kept", "attention", "top", box=None, pad_edge=False)
    for row in recall:
        table.add_row(row.policy, f"{row.share:.1%}", f"{row.mass:.3f}", f"{row.top:.3f}")
    return table
