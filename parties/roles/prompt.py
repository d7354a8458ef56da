"""The client's prompt as tokens."""

from pathlib import Path

import torch

from parties.errors import PromptError
from parties.models import ModelSpec, Tokenizer
from parties.roles.job import Job
from parties.text_file import Unreadable, reading, shown


def prompt_tokens(job: Job, tokenizer: Tokenizer, spec: ModelSpec) -> list[int]:
    """The first `seq_len` tokens of the prompt.

    Raises:
        PromptError: No such file, not UTF-8, too short a text, a token that the model does not know, or a length that
            it has no positions for.
    """
    if job.seq_len + job.new_tokens > spec.max_positions:
        raise PromptError(
            f"seq_len {job.seq_len} and new_tokens {job.new_tokens} exceed the model's {spec.max_positions} positions; "
            "shorten them"
        )
    if job.prompt.random_tokens:
        generator = torch.Generator().manual_seed(job.seed)
        drawn: list[int] = torch.randint(spec.vocab, (job.seq_len,), generator=generator).tolist()
        return drawn
    path = Path(job.prompt.text_file or "")
    try:
        with reading(path) as file:
            tokens = tokenizer.encode_start(file.read, job.seq_len)
    except Unreadable as error:
        raise PromptError(
            f"prompt.text_file: cannot read {shown(path)}: {error}; it must be a file of UTF-8 text"
        ) from None
    except PromptError as error:
        raise PromptError(f"prompt.text_file: {shown(path)}: {error}") from None
    if len(tokens) < job.seq_len:
        raise PromptError(
            f"prompt.text_file: {shown(path)} has {len(tokens)} tokens, seq_len asks for {job.seq_len}; "
            "give a longer text"
        )
    return tokens
