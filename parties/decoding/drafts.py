"""Drafts: the client's guesses of the next tokens, from its own text or from a public model of its own.

Nothing that a draft is made of leaves the client. All parties see how many tokens a draft has, always the same number,
and how many of them are accepted (`parties.decoding.verification`).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.verification import Verified, decode_pass, pass_segments

LONGEST_MATCH = 16
"""Most tokens by which two places of a text are compared."""


class Drafter(ABC):
    """Guesses what follows a text."""

    @abstractmethod
    def draft(self, text: Sequence[int], count: int) -> list[int]:
        """Exactly `count` tokens to follow the tokens of `text`, which is an earlier text and what followed it."""


class LookUp(Drafter):
    """Prompt look-up decoding (Saxena, 2023, github.com/apoorvumang/prompt-lookup-decoding).

    The draft is what followed the last place where the text ends as it ends now, by as many tokens as possible. Without
    such a place it repeats the last token. The work does not depend on the text but on its length.
    """

    def draft(self, text: Sequence[int], count: int) -> list[int]:
        """See `Drafter`."""
        tokens = torch.tensor(text)
        n = len(tokens)
        same, length = torch.ones(n, dtype=torch.bool), torch.zeros(n, dtype=torch.int64)
        for back in range(min(LONGEST_MATCH, n)):
            same[back:] &= tokens[: n - back] == tokens[n - 1 - back]
            same[:back] = False
            length += same
        length[n - 1] = 0  # the end itself
        best = int((length * n + torch.arange(n)).argmax())  # the longest match, the last one of equals
        found = list(text)
        for place in range(count):
            found.append(found[best + 1 + place] if length[best] else found[-1])
        return found[n:]


def vocabulary_problem(model: str, drafts: int, verifies: int) -> str:
    """Why a model cannot draft for another one; empty if it can."""
    if drafts == verifies:
        return ""
    return (
        f"{model} has {drafts:,} tokens, and the model that verifies its drafts has {verifies:,}; take one that shares "
        "its tokenizer"
    )


@dataclass
class Drafting:
    """Greedy decoding, pass by pass.

    Args:
        decoder: The model.
        cache: Holds the prompt without its last token.
        steps: Tokens to decode. Public.
        count: Tokens of a draft. Public.
        argmax: See `decoder.token_segments`.
        drafter: The source of drafts, at the client; None elsewhere.
        text: The prompt, at the client; grows by the decoded tokens.

    Attributes:
        drafted: How many draft tokens each pass could accept.
        accepted: How many it accepted.
    """

    decoder: Decoder
    cache: Cache
    steps: int
    count: int
    argmax: str
    drafter: Drafter | None = None
    text: list[int] = field(default_factory=list)
    drafted: tuple[int, ...] = ()
    accepted: tuple[int, ...] = ()

    def rehearse(self) -> None:
        """Prepares for the first pass; see `Engine.rehearse`."""
        count = self.count + 1
        tokens = None if self.drafter is None else [self.text[-1]] * count
        self.decoder.engine.rehearse(pass_segments(self.decoder, self.cache, tokens, count, self.argmax), self.cache)

    def passes(self) -> Iterator[Verified]:
        """Decodes all tokens, some in each pass."""
        decoder, left = self.decoder, self.steps
        while left:
            tokens = None
            if self.drafter is not None:
                with decoder.engine.meter.stage("draft"):
                    tokens = [self.text[-1], *self.drafter.draft(self.text, self.count)]
            found = decode_pass(decoder, self.cache, tokens, self.count + 1, left, self.argmax)
            if self.drafter is not None:
                self.text += [token for token in found.tokens if token is not None]
            self.drafted += (min(self.count, left - 1),)
            self.accepted += (len(found.logits) - 1,)
            left -= len(found.logits)
            yield found
