"""The client's prompts as tokens."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TextIO

import torch

from parties.errors import PromptError
from parties.messages import read_messages
from parties.models import ModelSpec, Tokenizer
from parties.roles.job import Job
from parties.text_file import Unreadable, reading, shown

_MOST_CHARACTERS = 2**22  # of a chat, which is tokenised as a whole; some seconds of work
_LEAST_TOKENS = 2  # one for the cache, and the first private step


def prompts(job: Job, tokenizer: Tokenizer, spec: ModelSpec) -> list[list[int]]:
    """The prompts that decode side by side, `batch` of them, all of the same client.

    They are windows of `seq_len` tokens, one after the other, of the text; or its lines, of each at most `seq_len`
    tokens; or random tokens. Each window begins with the leading token of the model's training, if there is one. A chat
    is one prompt, of `seq_len` tokens that end where the answer begins.

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
        return [torch.randint(spec.vocab, (job.seq_len,), generator=generator).tolist() for _ in range(job.batch)]
    key, name = job.prompt.file or ("text_file", "")
    read, form = _FILES[key]
    path = Path(name)
    try:
        return read(path, job, tokenizer)
    except Unreadable as error:
        raise PromptError(f"prompt.{key}: cannot read {shown(path)}: {error}; it must be {form}") from None
    except PromptError as error:
        raise PromptError(f"prompt.{key}: {shown(path)}: {error}") from None


def _text(path: Path, job: Job, tokenizer: Tokenizer) -> list[list[int]]:
    """Windows of the text, or its lines."""
    with reading(path) as file:
        if job.prompt.lines:
            return _lines(file, job, tokenizer)
        tokens = tokenizer.encode_start(file.read, job.seq_len * job.batch, parse_special=job.prompt.special_tokens)
    leading = tokens[: tokenizer.encode("")[:1] == tokens[:1]]
    length = job.seq_len - len(leading)
    windows = [leading + tokens[len(leading) + i * length :][:length] for i in range(job.batch)]
    if len(windows[-1]) < job.seq_len:
        wanted = f"seq_len asks for {job.seq_len}" + (f" of each of {job.batch} windows" if job.batch > 1 else "")
        raise PromptError(f"the text has {len(tokens)} tokens, {wanted}; give a longer text")
    return windows


def _lines(file: TextIO, job: Job, tokenizer: Tokenizer) -> list[list[int]]:
    lines = list(islice((line for line in map(str.strip, _bounded_lines(file)) if line), job.batch))
    if len(lines) < job.batch:
        raise PromptError(f"the text has {len(lines)} lines that are not empty, batch asks for {job.batch}; add lines")
    special = job.prompt.special_tokens
    found = [tokenizer.encode(line, parse_special=special)[: job.seq_len] for line in lines]
    if short := [i for i, tokens in enumerate(found, 1) if len(tokens) < _LEAST_TOKENS]:
        raise PromptError(f"line {short[0]} has fewer than {_LEAST_TOKENS} tokens; make it longer")
    return found


def _bounded_lines(file: TextIO) -> Iterator[str]:
    while line := file.readline(_MOST_CHARACTERS):
        if len(line) == _MOST_CHARACTERS:
            raise PromptError(f"a line has {_MOST_CHARACTERS:,} characters or more; break it")
        yield line


def _chat(path: Path, job: Job, tokenizer: Tokenizer) -> list[list[int]]:
    if job.batch > 1:
        raise PromptError(f"a chat is one prompt, and batch asks for {job.batch}; give them as lines of a text_file")
    messages = read_messages(path)
    length = sum(len(message.content) for message in messages)
    if length > _MOST_CHARACTERS:
        raise PromptError(f"the messages have {length:,} characters; give at most {_MOST_CHARACTERS:,}")
    return [tokenizer.encode_chat(messages, parse_special=job.prompt.special_tokens).cut(job.seq_len)]


_FILES = {
    "text_file": (_text, "a file of UTF-8 text"),
    "messages": (_chat, "a YAML or JSON list of messages with role and content"),
}
"""Reader and form of a prompt's file, by the key that names it."""
