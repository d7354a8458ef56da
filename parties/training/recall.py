"""How much of what a text's continuation attends to a policy had kept: on text that no head was trained with."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from parties.cache import Cache
from parties.decoder import Decoder
from parties.heads.format import Head
from parties.policies import make
from parties.program import run
from parties.training.backbone import Backbone, Seen

SHARES = (0.5, 0.25, 0.125)
BASELINES = ("random", "streaming_llm", "h2o", "snapkv")


@dataclass(frozen=True)
class Recall:
    """What one policy kept, means over windows, layers and heads.

    Attributes:
        policy: its name.
        share: of the context's tokens that it may keep.
        mass: share of the full cache's attention on the context that fell on kept tokens.
        top: share of kept tokens among as many of those with the most attention, by key head.
    """

    policy: str
    share: float
    mass: float
    top: float


def measure(
    backbone: Backbone, head: Head, windows: Sequence[list[int]], context: int, tick: Callable[[], None]
) -> list[Recall]:
    """Compares the policy of some heads with policies that need no training.

    Args:
        backbone: the model; the heads are installed in its engine.
        head: trained heads.
        windows: held-out text, at least one window of more than `context` tokens.
        context: tokens of a window that are compressed; the others are what follows.
        tick: called after each window.
    """
    backbone.install(head)
    names, found = (*BASELINES, head.kind), dict[tuple[str, float], list[tuple[float, float]]]()
    for window in windows:
        weights = [_attention(seen, context) for seen in backbone.watch(window)]
        for name in names:
            for share in SHARES:
                kept = _kept(backbone, name, share, window[:context])
                pairs = [_shares(by_head, flags) for by_head, flags in zip(weights, kept, strict=True)]
                found.setdefault((name, share), []).extend(pairs)
        tick()
    return [
        Recall(name, share, *(sum(column) / len(pairs) for column in zip(*pairs, strict=True)))
        for (name, share), pairs in found.items()
    ]


def _attention(seen: Seen, context: int) -> Tensor:
    """What the queries after the context attend to in it, each with a sum of 1: [kv_heads, rows, context]."""
    kv_heads = seen.k.shape[0]
    scores = seen.q[:, context:].reshape(kv_heads, -1, seen.q.shape[2]) @ seen.k[:, :context].transpose(1, 2)
    return scores.softmax(-1)


def _kept(backbone: Backbone, name: str, share: float, prompt: list[int]) -> Iterator[Tensor]:
    """Flags of what a policy keeps of a prompt in each layer, [kv_heads, n]."""
    spec = backbone.spec
    cache = Cache.empty(spec.n_layers)
    decoder = Decoder(backbone.engine, spec, make(name, compression_ratio=1 - share, mode="mask"))
    with torch.no_grad():
        run(decoder.prefill(run(decoder.embed(prompt, len(prompt), 0)), cache))
    for here in cache.layers:
        yield here.alive.expand(spec.n_kv_heads, -1)


def _shares(weights: Tensor, flags: Tensor) -> tuple[float, float]:
    """Attention on kept tokens, and how many of the most attended ones were kept."""
    mass = (weights * flags.unsqueeze(1)).sum(-1).mean()
    count = int(flags[0].sum())
    best = weights.sum(1).topk(count).indices
    return float(mass), float(flags.gather(1, best).mean())
