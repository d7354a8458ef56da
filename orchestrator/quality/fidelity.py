"""How close a policy stays to the full cache on real text."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from orchestrator.quality.reader import Step


@dataclass(frozen=True)
class Fidelity:
    """Means over the tokens of a continuation, each decoded through the compressed cache.

    Attributes:
        kl: Kullback-Leibler divergence of the next-token distribution from the full cache's, nats.
        agreement: Share of tokens with the same most likely next token.
        nll: Negative log-likelihood of the text, nats; its exponential is the perplexity.
        reference_nll: The same with the full cache.
    """

    kl: float
    agreement: float
    nll: float
    reference_nll: float


def fidelity(step: Step, reference: Tensor, continuation: Sequence[int]) -> Fidelity:
    """Runs a text through a compressed cache of its beginning and compares with the full cache.

    Args:
        step: Decodes a token through the cache.
        reference: The full cache's logits for the continuation, [n, vocab].
        continuation: The last token of the beginning, and the n tokens after it.
    """
    logits = torch.stack([step(token) for token in continuation[:-1]])
    return compare_logits(logits, reference, torch.tensor(continuation[1:], device=logits.device))


def compare_logits(logits: Tensor, reference: Tensor, text: Tensor) -> Fidelity:
    """Compares two sets of logits, [n, vocab], for the same text, [n]."""
    ours, theirs = logits.log_softmax(-1), reference.log_softmax(-1)
    at = torch.arange(len(text), device=text.device)
    return Fidelity(
        kl=float((theirs.exp() * (theirs - ours)).sum(-1).mean()),
        agreement=float((logits.argmax(-1) == reference.argmax(-1)).double().mean()),
        nll=float(-ours[at, text].mean()),
        reference_nll=float(-theirs[at, text].mean()),
    )
