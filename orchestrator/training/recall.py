"""Recall of a policy: the share of a continuation's attention that falls on kept tokens, on held-out text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from orchestrator.training.backbone import Backbone, Seen
from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import Program, run
from parties.heads.format import Head
from parties.policies.base import Policy
from parties.policies.choice import PolicyChoice

if TYPE_CHECKING:
    from parties.engines.base import Engine

SHARES = (0.5, 0.25, 0.125)
BASELINES = ("random", "streaming_llm", "h2o", "snapkv")


@dataclass(frozen=True)
class Recall:
    """Recall of one policy, means over windows, layers and heads.

    Attributes:
        policy: Name of the policy.
        share: Share of the context's tokens that it may keep.
        mass: Share of the full cache's attention on the context that falls on kept tokens.
        top: Share of kept tokens among the same number of most attended tokens, per key head.
    """

    policy: str
    share: float
    mass: float
    top: float


def measure(
    backbone: Backbone, head: Head, windows: Sequence[list[int]], context: int, tick: Callable[[], None]
) -> list[Recall]:
    """Compares the policy of trained heads with policies that need no training.

    Args:
        backbone: The model; the heads are installed in its engine.
        head: Trained heads.
        windows: Held-out text, at least one window of more than `context` tokens.
        context: Tokens of a window that are compressed; the other tokens are the continuation.
        tick: Called after each window.
    """
    backbone.install(head)
    measured = [(name, share) for name in (*BASELINES, head.kind) for share in SHARES]
    choices = [{"name": name, "compression_ratio": 1 - share, "mode": "mask"} for name, share in measured]
    policies = [PolicyChoice.model_validate(choice).build() for choice in choices]
    found: dict[tuple[str, float], list[tuple[float, float]]] = {which: [] for which in measured}
    for window in windows:
        weights = [_attention(seen, context) for seen in backbone.watch(window)]
        for which, kept in zip(measured, _kept(backbone, policies, window[:context]), strict=True):
            found[which] += [_shares(by_head, flags) for by_head, flags in zip(weights, kept, strict=True)]
        tick()
    return [
        Recall(name, share, *(sum(column) / len(pairs) for column in zip(*pairs, strict=True)))
        for (name, share), pairs in found.items()
    ]


def _attention(seen: Seen, context: int) -> Tensor:
    """Attention of later queries on the context, each row with a sum of 1: [kv_heads, rows, context]."""
    kv_heads = seen.k.shape[0]
    scores = seen.q[:, context:].reshape(kv_heads, -1, seen.q.shape[2]) @ seen.k[:, :context].transpose(1, 2)
    return scores.softmax(-1)


@dataclass(frozen=True)
class _Parallel(Policy):
    """Runs several policies on one run of the prompt, each with a cache of its own; none may set a chunk size."""

    name: ClassVar[str] = "parallel"
    keeps: ClassVar[str] = "every token"
    source: ClassVar[str] = "-"

    branches: list[tuple[Policy, Cache]] = field(default_factory=list)

    def on_projection(self, engine: "Engine", cache: Cache, layer: int, normal: Any, qkv: Any) -> Program[None]:  # noqa: ARG002
        """Passes the rows on."""
        for policy, own in self.branches:
            yield from policy.on_projection(engine, own, layer, normal, qkv)

    def after_chunk(self, engine: "Engine", cache: Cache, layer: int, position: int) -> Program[None]:
        """Copies the layer to the cache of each policy."""
        for policy, own in self.branches:
            here, seen = own.layers[layer], cache.layers[layer]
            here.k, here.v, here.rows, here.queries = seen.k, seen.v, seen.rows, seen.queries
            yield from policy.after_chunk(engine, own, layer, position)

    def after_prefill(self, engine: "Engine", cache: Cache, layer: int, q: Any) -> Program[None]:
        """Lets each policy compress."""
        for policy, own in self.branches:
            own.position = own.prompt = cache.prompt
            yield from policy.after_prefill(engine, own, layer, q)


def _kept(backbone: Backbone, policies: Sequence[Policy], prompt: list[int]) -> list[list[Tensor]]:
    """Flags of the tokens of a prompt that each policy keeps in each layer, [kv_heads, n]."""
    spec = backbone.spec
    parallel = _Parallel([(policy, Cache.empty(spec.n_layers)) for policy in policies])
    decoder, cache = Decoder(backbone.engine, spec, parallel), Cache.empty(spec.n_layers)
    with torch.no_grad():
        run(decoder.prefill(run(decoder.embed(prompt, len(prompt), 0)), cache))
    return [[here.alive.expand(spec.n_kv_heads, -1) for here in own.layers] for _, own in parallel.branches]


def _shares(weights: Tensor, flags: Tensor) -> tuple[float, float]:
    """The share of attention on kept tokens, and the share of the most attended tokens that were kept."""
    mass = (weights * flags.unsqueeze(1)).sum(-1).mean()
    count = int(flags[0].sum())
    best = weights.sum(1).topk(count).indices
    return float(mass), float(flags.gather(1, best).mean())
