"""Answers to a question about a context, decoded through a compressed cache."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from orchestrator.quality.reader import Step
from parties.models import Tokenizer

Question = Literal["visible", "hidden"]
Metric = Callable[[str, Sequence[str]], float]
"""Scores an answer, given what is right, 0 to 1."""


@dataclass(frozen=True)
class Sample:
    """A question with known answers.

    Attributes:
        context: what is to be remembered, and what stands before it.
        question: all that follows, up to the words that the answer begins after.
        answers: what is right; how several of them count is the metric's matter.
        metric: how an answer is scored.
        new_tokens: length of an answer, at most.
        stop: a text whose token ends the answer as the end of a text does, and none of them may begin it.
    """

    context: str
    question: str
    answers: tuple[str, ...]
    metric: Metric
    new_tokens: int
    stop: str = ""


@dataclass(frozen=True)
class Asked:
    """A sample as tokens, cut where the cache is compressed.

    Attributes:
        before: what is compressed.
        after: at least one token, decoded through the compressed cache before the answer.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]


def asked(tokenizer: Tokenizer, sample: Sample, question: Question, most: int | None = None) -> Asked:
    """Cuts a sample: `visible` compresses with the question in sight (query-aware), `hidden` before it is known.

    Args:
        tokenizer: the model's; it sees context and question as one text.
        sample: what is asked.
        question: where the cut is.
        most: tokens of context and question; of a longer text the middle is left out, as LongBench does
            (arXiv 2308.14508).
    """
    context, rest = tokenizer.encode_cut(sample.context + sample.question, len(sample.context))
    tokens, cut = context + rest, len(context)
    if most is not None and len(tokens) > most:
        half, left_out = most // 2, len(tokens) - most // 2 * 2
        tokens, cut = tokens[:half] + tokens[-half:], max(min(cut, half), cut - left_out)
    cut = min(cut if question == "hidden" else len(tokens), len(tokens) - 1)
    return Asked(tuple(tokens[:cut]), tuple(tokens[cut:]))


def answer(step: Step, after: Sequence[int], sample: Sample, tokenizer: Tokenizer, ends: Collection[int] = ()) -> float:
    """Decodes an answer greedily through a compressed cache: its score, 0 to 1.

    Args:
        step: decodes a token through the cache.
        after: at least one token to decode before the answer.
        sample: what was asked.
        tokenizer: the model's.
        ends: tokens that end a text.
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
