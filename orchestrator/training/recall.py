"""How much of what a text's continuation attends to a policy had kept: on text that no head was trained with."""

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
from parties.policies import make
from parties.policies.base import Policy

if TYPE_CHECKING:
    from parties.engines.base import Engine

SHARES = (0.5, 0.25, 0.125)
BASELINES = ("random", "streaming_llm", "h2o", "snapkv")


@dataclass(frozen=True)
class Recall:
    """What one policy kept, means over windows, layers and heads.

    Attributes:
        policy: Its name.
        share: Of the context's tokens that it may keep.
        mass: Share of the full cache's attention on the context that fell on kept tokens.
        top: Share of kept tokens among as many of those with the most attention, by key head.
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
        backbone: The model; the heads are installed in its engine.
        head: Trained heads.
        windows: Held-out text, at least one window of more than `context` tokens.
        context: Tokens of a window that are compressed; the others are what follows.
        tick: Called after each window.
    """
    backbone.install(head)
    asked = [(name, share) for name in (*BASELINES, head.kind) for share in SHARES]
    policies = [make(name, compression_ratio=1 - share, mode="mask") for name, share in asked]
    found: dict[tuple[str, float], list[tuple[float, float]]] = {which: [] for which in asked}
    for window in windows:
        weights = [_attention(seen, context) for seen in backbone.watch(window)]
        for which, kept in zip(asked, _kept(backbone, policies, window[:context]), strict=True):
            found[which] += [_shares(by_head, flags) for by_head, flags in zip(weights, kept, strict=True)]
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


@dataclass(frozen=True)
class _Rivals(Policy):
    """Policies that each compress a cache of their own while the prompt runs once; none takes it in chunks."""

    name: ClassVar[str] = "rivals"
    keeps: ClassVar[str] = "every token"
    source: ClassVar[str] = "-"

    rivals: list[tuple[Policy, Cache]] = field(default_factory=list)

    def on_projection(self, engine: "Engine", cache: Cache, layer: int, normal: Any, qkv: Any) -> Program[None]:  # noqa: ARG002
        """Passes the rows on."""
        for policy, own in self.rivals:
            yield from policy.on_projection(engine, own, layer, normal, qkv)

    def after_chunk(self, engine: "Engine", cache: Cache, layer: int, position: int) -> Program[None]:
        """Gives each policy the layer as it is."""
        for policy, own in self.rivals:
            here, seen = own.layers[layer], cache.layers[layer]
            here.k, here.v, here.rows, here.queries = seen.k, seen.v, seen.rows, seen.queries
            yield from policy.after_chunk(engine, own, layer, position)

    def after_prefill(self, engine: "Engine", cache: Cache, layer: int, q: Any) -> Program[None]:
        """Lets each policy compress."""
        for policy, own in self.rivals:
            own.position = own.prompt = cache.prompt
            yield from policy.after_prefill(engine, own, layer, q)


def _kept(backbone: Backbone, policies: Sequence[Policy], prompt: list[int]) -> list[list[Tensor]]:
    """Flags of what each policy keeps of a prompt in each layer, [kv_heads, n]."""
    spec = backbone.spec
    rivals = _Rivals([(policy, Cache.empty(spec.n_layers)) for policy in policies])
    decoder, cache = Decoder(backbone.engine, spec, rivals), Cache.empty(spec.n_layers)
    with torch.no_grad():
        run(decoder.prefill(run(decoder.embed(prompt, len(prompt), 0)), cache))
    return [[here.alive.expand(spec.n_kv_heads, -1) for here in own.layers] for _, own in rivals.rivals]


def _shares(weights: Tensor, flags: Tensor) -> tuple[float, float]:
    """Attention on kept tokens, and how many of the most attended ones were kept."""
    mass = (weights * flags.unsqueeze(1)).sum(-1).mean()
    count = int(flags[0].sum())
    best = weights.sum(1).topk(count).indices
    return float(mass), float(flags.gather(1, best).mean())
