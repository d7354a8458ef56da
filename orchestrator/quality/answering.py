"""Answers to a question about a context, decoded through a compressed cache."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from orchestrator.quality.reader import Step
from parties.models import Tokenizer

Question = Literal["visible", "hidden"]
Metric = Callable[[str, Sequence[str]], float]
"""Scores an answer against the right ones, 0 to 1."""


@dataclass(frozen=True)
class Sample:
    """A question with known answers.

    Attributes:
        context: The text to remember, with the words before it.
        question: The rest of the prompt, up to the point where the answer begins.
        answers: The right answers; the metric defines how several of them count.
        metric: Scores an answer.
        new_tokens: Largest number of tokens of an answer.
        stop: A text whose token ends the answer, as an end-of-text token does; an answer cannot begin with either.
    """

    context: str
    question: str
    answers: tuple[str, ...]
    metric: Metric
    new_tokens: int
    stop: str = ""


@dataclass(frozen=True)
class SplitSample:
    """The tokens of a sample, split where the cache is compressed.

    Attributes:
        before: Tokens of the compressed cache.
        after: Tokens decoded through the compressed cache before the answer, at least one.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]


def split_sample(
    tokenizer: Tokenizer, sample: Sample, question: Question, max_tokens: int | None = None
) -> SplitSample:
    """Splits a sample: `visible` compresses with the question in sight (query-aware), `hidden` without it.

    Args:
        tokenizer: The tokenizer of the model; it encodes context and question as one text.
        sample: The sample.
        question: Where the sample is split.
        max_tokens: Limit on context and question together; a longer text loses its middle, as in LongBench
            (arXiv 2308.14508).
    """
    context, rest = tokenizer.encode_cut(sample.context + sample.question, len(sample.context))
    tokens, cut = context + rest, len(context)
    if max_tokens is not None and len(tokens) > max_tokens:
        half, left_out = max_tokens // 2, len(tokens) - max_tokens // 2 * 2
        tokens, cut = tokens[:half] + tokens[-half:], max(min(cut, half), cut - left_out)
    cut = min(cut if question == "hidden" else len(tokens), len(tokens) - 1)
    return SplitSample(tuple(tokens[:cut]), tuple(tokens[cut:]))


def answer(step: Step, after: Sequence[int], sample: Sample, tokenizer: Tokenizer, ends: Collection[int] = ()) -> float:
    """Decodes an answer greedily through a compressed cache and returns its score, 0 to 1.

    Args:
        step: Decodes a token through the cache.
        after: Tokens to decode before the answer, at least one.
        sample: The sample.
        tokenizer: The tokenizer of the model.
        ends: Tokens that end a text.
    """
    for token in after:
        logits = step(token)
    if sample.stop:
        ends = {*ends, tokenizer.encode(sample.stop, special=False)[-1]}
        logits = logits.index_fill(0, torch.tensor(sorted(ends), device=logits.device), -torch.inf)
    found: list[int] = []
    while (token := int(logits.argmax())) not in ends:
        found.append(token)
        if len(found) == sample.new_tokens:
            break
        logits = step(token)
    return sample.metric(tokenizer.decode(found), sample.answers)
