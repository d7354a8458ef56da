"""Checks the files of cells on this machine before the first cell: weights, tokenizer, prompt, heads.

The parties read the same files on their own hosts. On a cluster, files that are missing here are left to the parties.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.experiment.cells import Cell
from orchestrator.experiment.problems import ConfigError, Problem
from parties.errors import ModelError, PromptError
from parties.roles.job import Job

_MODEL = "a model whose files are whole"
_HEAD = "heads that were trained for this policy and model"
_MODEL_FIX = "fetch the model again, or name another one"
_PROMPT_FIX = "change seq_lens, or name another prompt"
_HEAD_FIX = "name heads that fit, or leave the policy out"


def require_inputs(cells: Sequence[Cell], file: Path, *, elsewhere: bool) -> None:
    """Refuse cells that no party can run from the files that are here.

    Args:
        cells: Cells of one experiment, at least one.
        file: The experiment file, for the message.
        elsewhere: Whether the parties run on a cluster, whose hosts may hold a model and heads that are not here.

    Raises:
        ConfigError: With all that is missing, damaged or too short, each thing once.
    """
    files = [*_weights(cells[0]), *_heads(cells)]
    problems = [*([] if elsewhere else files), *_tokens(cells, elsewhere=elsewhere)]
    if problems:
        raise ConfigError(str(file), problems)


def _weights(cell: Cell) -> Iterator[Problem]:
    """Weights that are missing, incomplete or of another model."""
    from parties.models import check_weights  # torch comes with it, and most commands do without

    try:
        check_weights(cell.model)
    except ModelError as error:
        yield Problem("model", cell.model, _MODEL, _MODEL_FIX, str(error))


def _tokens(cells: Sequence[Cell], *, elsewhere: bool) -> Iterator[Problem]:
    """A tokenizer that cannot be used, or a prompt that does not fit the longest or the shortest of the cells."""
    from parties.models import load_spec, load_tokenizer
    from parties.roles.prompt import prompts

    longest = max(cells, key=lambda cell: cell.seq_len + cell.new_tokens)
    most = max(cells, key=lambda cell: cell.seq_len * cell.batch)
    shortest = min(cells, key=lambda cell: cell.seq_len)  # too short for the marks of a chat
    try:
        tokenizer, spec = load_tokenizer(longest.model), load_spec(longest.model)
        for cell in [longest, shortest] if longest.prompt.messages else [longest, most]:
            prompts(_job(cell), tokenizer, spec)
    except ModelError as error:
        if not elsewhere:
            yield Problem("model", longest.model, _MODEL, _MODEL_FIX, str(error))
    except PromptError as error:
        key, file = longest.prompt.file or ("random_tokens", True)
        text = f"a UTF-8 text of at least {most.seq_len * most.batch} tokens"
        if longest.prompt.lines:
            text = f"a UTF-8 text of at least {max(cell.batch for cell in cells)} lines that are not empty"
        allowed = "a chat that fits the longest and the shortest of seq_lens" if key == "messages" else text
        reason = str(error).removeprefix(f"prompt.{key}: ")
        yield Problem(f"prompt.{key}", file, allowed, _PROMPT_FIX, reason)


def _heads(cells: Sequence[Cell]) -> Iterator[Problem]:
    """Trained heads that are missing, damaged or of another model's shape, as far as no weights are needed."""
    from parties.heads import load_head, read_head
    from parties.models import load_spec

    for choice in dict.fromkeys(str(cell.policy) for cell in cells):
        policy = next(cell.policy for cell in cells if str(cell.policy) == choice)
        kind, head = policy.build().trained, str(policy.parameters.get("head", ""))
        if kind is None:
            continue
        try:
            load_head(head, kind, load_spec(cells[0].model), read_head(head, kind).fingerprint)
        except ModelError as error:
            reason = str(error).removeprefix("head: ")
            yield Problem(f"policies.{policy.name}.head", head, _HEAD, _HEAD_FIX, reason)


def _job(cell: Cell) -> Job:
    """The part of a cell's job that its prompt depends on."""
    values = cell.model_dump(include={"model", "prompt", "seq_len", "new_tokens", "batch", "seed"})
    return Job.model_validate({**values, "engine": cell.engine.name, "policy": {"name": cell.policy.name}})
