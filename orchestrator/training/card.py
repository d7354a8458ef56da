"""Model cards of trained heads: their data, settings and recall."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.training.loop import Run
from orchestrator.training.recall import Recall
from orchestrator.training.settings import Settings
from orchestrator.training.windows import Text

ROWS = 12


@dataclass(frozen=True)
class TrainedHeads:
    """The facts of a finished training.

    Attributes:
        command: The command that started it.
        machine: The hardware that it ran on, in words.
        model: The name of the model.
        fingerprint: The fingerprint of the model.
        settings: The settings of the training.
        texts: The training texts.
        held_out: The texts on which `recall` was measured.
        windows: The number of windows of these.
        recall: The measured recall; empty without held-out text.
        licence: The licence of the heads.
        size: The size of their file in bytes.
        parameters: The number of parameters.
    """

    command: str
    machine: str
    model: str
    fingerprint: str
    settings: Settings
    texts: Sequence[Text]
    held_out: Sequence[Text]
    windows: int
    recall: Sequence[Recall]
    licence: str
    size: int
    parameters: int


def card(made: TrainedHeads, run: Run) -> str:
    """The card, Markdown."""
    chosen, settings = made.settings, [f"{name} {value}" for name, value in made.settings.to_json().items()]
    tokens = chosen.windows * chosen.length
    lines = [
        f"# Heads of `{chosen.kind}` for {made.model}",
        "",
        "```",
        made.command,
        "```",
        "",
        f"* Model: {made.model}, fingerprint `{made.fingerprint}`; frozen.",
        f"* Size: {made.parameters:,} parameters, float16, {made.size / 1e6:.2f} MB.",
        f"* Trained: {run.step:,} steps on {chosen.windows:,} windows of {chosen.length} tokens, {tokens:,} in all.",
        f"* Took: {run.seconds / 60:.1f} minutes on {made.machine}.",
        f"* Settings: {', '.join(settings)}.",
        f"* Licence: {made.licence}.",
        "",
        "## Data",
        "",
        "| text | used for | tokens | SHA-256 |",
        "| --- | --- | --- | --- |",
        *(_text_row(text, "training") for text in made.texts),
        *(_text_row(text, "recall") for text in made.held_out),
        "",
        "## Losses",
        "",
        *_losses(run, chosen),
        "",
        "## Held-out recall",
        "",
        *_recall(made),
    ]
    return "\n".join(lines) + "\n"


def _text_row(text: Text, purpose: str) -> str:
    return f"| {text.name} | {purpose} | {len(text.tokens):,} | `{text.sha256}` |"


def _losses(run: Run, settings: Settings) -> list[str]:
    """Means over blocks, reduced to a readable number of rows that includes the last."""
    names = list(run.history[0])
    rows = [f"| steps | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    every = -(-len(run.history) // ROWS)
    for index, losses in enumerate(run.history, 1):
        if index % every == 0 or index == len(run.history):
            done = min(index * settings.block * settings.repeats, run.step)
            rows.append(f"| {done:,} | {' | '.join(f'{losses[name]:.4f}' for name in names)} |")
    return rows


def _recall(made: TrainedHeads) -> list[str]:
    if not made.recall:
        return ["Not measured; `--held-out FILE` measures it."]
    shares = sorted({found.share for found in made.recall}, reverse=True)
    by_name = {(found.policy, found.share): found for found in made.recall}
    heads = [f"{kind} at {share:.1%}" for kind in ("attention", "top") for share in shares]
    context, answer = made.settings.context, made.settings.answer
    return [
        f"{made.windows} windows: a policy keeps a share of {context} tokens; the {answer} that follow see them all.",
        "*attention*: share of the attention on the context that falls on kept tokens. *top*: share of kept tokens",
        "among as many of the most attended. Means over windows, layers and heads.",
        "",
        f"| policy | {' | '.join(heads)} |",
        f"| --- |{' --- |' * len(heads)}",
        *(
            f"| {name} | "
            + " | ".join(f"{getattr(by_name[name, share], part):.3f}" for part in ("mass", "top") for share in shares)
            + " |"
            for name in dict.fromkeys(found.policy for found in made.recall)
        ),
    ]
