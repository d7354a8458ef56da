"""The client's prompt as tokens."""

from pathlib import Path

import torch

from parties.errors import PromptError
from parties.messages import read_messages
from parties.models import ModelSpec, Tokenizer
from parties.roles.job import Job
from parties.text_file import Unreadable, reading, shown

_MOST_CHARACTERS = 2**22  # of a chat, which is tokenised as a whole; some seconds of work


def prompt_tokens(job: Job, tokenizer: Tokenizer, spec: ModelSpec) -> list[int]:
    """The first `seq_len` tokens of the prompt; of a chat, `seq_len` tokens that end where the answer begins.

    Raises:
        PromptError: No such file, not UTF-8, too short a text, messages that the model has no template for, a token
            that the model does not know, or a length that it has no positions for.
    """
    drafted = job.options.draft.count if job.options.draft else 0
    if job.seq_len + job.new_tokens + drafted > spec.max_positions:
        also = f" and a draft of {drafted}" if drafted else ""
        raise PromptError(
            f"seq_len {job.seq_len} and new_tokens {job.new_tokens}{also} exceed the model's {spec.max_positions} "
            "positions; shorten them"
        )
    if job.prompt.random_tokens:
        generator = torch.Generator().manual_seed(job.seed)
        drawn: list[int] = torch.randint(spec.vocab, (job.seq_len,), generator=generator).tolist()
        return drawn
    key, name = job.prompt.file or ("text_file", "")
    read, form = _FILES[key]
    path = Path(name)
    try:
        return read(path, job, tokenizer)
    except Unreadable as error:
        raise PromptError(f"prompt.{key}: cannot read {shown(path)}: {error}; it must be {form}") from None
    except PromptError as error:
        raise PromptError(f"prompt.{key}: {shown(path)}: {error}") from None


def _text(path: Path, job: Job, tokenizer: Tokenizer) -> list[int]:
    with reading(path) as file:
        tokens = tokenizer.encode_start(file.read, job.seq_len, parse_special=job.prompt.special_tokens)
    if len(tokens) < job.seq_len:
        raise PromptError(f"the text has {len(tokens)} tokens, seq_len asks for {job.seq_len}; give a longer text")
    return tokens


def _chat(path: Path, job: Job, tokenizer: Tokenizer) -> list[int]:
    messages = read_messages(path)
    length = sum(len(message.content) for message in messages)
    if length > _MOST_CHARACTERS:
        raise PromptError(f"the messages have {length:,} characters; give at most {_MOST_CHARACTERS:,}")
    return tokenizer.encode_chat(messages, parse_special=job.prompt.special_tokens).cut(job.seq_len)


_FILES = {
    "text_file": (_text, "a file of UTF-8 text"),
    "messages": (_chat, "a YAML or JSON list of messages with role and content"),
}
"""Reader and form of a prompt's file, by the key that names it."""
