"""Answers to a question about a context, decoded through a compressed cache."""

from dataclasses import dataclass
from typing import Literal

from parties.models import Tokenizer
from parties.quality.metrics import METRICS
from parties.quality.reader import Step

Question = Literal["visible", "hidden"]


@dataclass(frozen=True)
class Sample:
    """A question with known answers.

    Attributes:
        context: what is to be remembered.
        question: what is asked, and the words that the answer begins after.
        answers: what is right; how several of them count is the metric's matter.
        metric: a key of `METRICS`.
        new_tokens: length of an answer.
    """

    context: str
    question: str
    answers: tuple[str, ...]
    metric: str
    new_tokens: int


@dataclass(frozen=True)
class Asked:
    """A sample as tokens, cut where the cache is compressed.

    Attributes:
        before: what is compressed.
        after: at least one token, decoded through the compressed cache before the answer.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]


def asked(tokenizer: Tokenizer, sample: Sample, question: Question) -> Asked:
    """Cuts a sample: `visible` compresses with the question in sight (query-aware), `hidden` before it is known."""
    context = tokenizer.encode(sample.context)
    whole = context + tokenizer.encode(sample.question)
    cut = len(context) if question == "hidden" else len(whole) - 1
    return Asked(tuple(whole[:cut]), tuple(whole[cut:]))


def answer(step: Step, after: tuple[int, ...], sample: Sample, tokenizer: Tokenizer) -> float:
    """Decodes an answer greedily through a compressed cache: its score, 0 to 1.

    Args:
        step: decodes a token through the cache.
        after: at least one token to decode before the answer.
        sample: what was asked.
        tokenizer: the model's.
    """
    for token in after:
        logits = step(token)
    found: list[int] = []
    while True:
        found.append(int(logits.argmax()))
        if len(found) == sample.new_tokens:
            break
        logits = step(found[-1])
    return METRICS[sample.metric](tokenizer.decode(found), sample.answers)
