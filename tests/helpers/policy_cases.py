"""Every policy in a size that fits a tiny model, and its results there with the plain engine."""

from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import Program, run
from parties.engines.plain import PlainEngine
from parties.heads.folding import fold_head
from parties.heads.untrained import random_head
from parties.metering.meter import StageMeter
from parties.models.folding import fold
from parties.policies import POLICIES, make
from parties.policies.base import Policy
from tests.helpers.tiny import LLAMA, random_tokens, random_weights

SPEC = replace(LLAMA, n_layers=2)
PROMPT, STEPS = 17, 5
SMALL: dict[str, Any] = {
    "compression_interval": 2, "window_size": 4, "n_local": 4, "n_init": 2, "block_size": 4, "page_size": 4,
    "dense_layers": 0, "residual_length": 8, "group_size": 4, "stabilizers": 2, "repr_topk": 2, "fine_size": 4,
    "coarse_size": 8, "cluster_size": 4, "alpha": 0.05,
}  # fmt: skip
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in POLICIES},
    "h2o by step": ("h2o", {"compression_interval": 1, "mode": "mask", "compact_every": 3}),
    "tova by step": ("tova", {"compression_interval": 1}),
    "lazy_eviction masked": ("lazy_eviction", {"mode": "mask"}),
    "streaming_llm masked": ("streaming_llm", {"mode": "mask", "compression_interval": 2, "compact_every": 4}),
    "snapkv by maximum": ("snapkv", {"pooling": "max", "mode": "mask"}),
    "locret in chunks": ("locret", {"chunk_size": 7}),
    "locret quantised": ("locret", {"nbits": 4}),
    "attention_gate by threshold": ("attention_gate", {"form": "threshold", "compression_ratio": 0.3}),
    "mpcache ahead": ("mpcache", {"ahead": True, "static_keep": 0.8, "select": 0.3}),
    "mpcache by rows": ("mpcache", {"use": "rows", "static_keep": 0.8, "select": 0.3}),
    "mpcache by key head": ("mpcache", {"by": "key_head", "ahead": True, "static_keep": 0.8, "select": 0.3}),
    "quest ahead": ("quest", {"ahead": True}),
    "infllm ahead": ("infllm", {"ahead": True}),
    "mikv in 4 bits": ("mikv", {"nbits": 4, "balancer": False}),
}
"""Name of each case: a policy and what differs from `SMALL`."""
QUANTISED = {"kivi", "mikv", "mikv in 4 bits", "locret quantised"}
"""Cases where a number next to the edge between two levels may be rounded to the other one."""

Text = tuple[list[int], list[int]]
"""A prompt, and the tokens that are decoded after it."""


@dataclass(frozen=True)
class Decoded:
    """Logits of each step, [steps, vocab], and the cached tokens of each layer during each and in the end."""

    logits: Tensor
    held: list[list[int]]
    left: list[int]


def small(name: str, **changes: Any) -> Policy:
    """A policy with parameters for a tiny model."""
    known = {field.name for field in fields(POLICIES[name])}
    both = {key: value for key, value in SMALL.items() if key in known} | changes
    if name == "mpcache" and "alpha" not in changes:
        del both["alpha"]
    return make(name, **both)


def case(name: str) -> Policy:
    """One of `VARIANTS`."""
    policy, changes = VARIANTS[name]
    return small(policy, **changes)


def parameters(policy: Policy, spec: Any = SPEC, weights: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The parameters that the server installs: the folded model, and random heads where the policy has any."""
    weights = weights or random_weights(spec)
    heads = {}
    if policy.trained:
        heads = fold_head(random_head(policy.trained, spec, weights, seed=3), spec, weights)
    return fold(spec, weights) | heads


def plain(
    policy: Policy,
    spec: Any = SPEC,
    weights: dict[str, Tensor] | None = None,
    kind: type[PlainEngine] = PlainEngine,
) -> Decoder:
    """A decoder on the plain engine."""
    engine = kind(StageMeter())
    installed = parameters(policy, spec, weights)
    run(engine.install({name: tuple(w.shape) for name, w in installed.items()}, installed))
    return Decoder(engine, spec, policy)


class NoisyEngine(PlainEngine):
    """The plain engine with noise on every linear output, several times that of fixed point."""

    def linear(self, x: Tensor, name: str, columns: int | None = None) -> Program[Tensor]:
        y = yield from super().linear(x, name, columns)
        generator = torch.Generator().manual_seed(x.numel() + len(name))
        return y + 1e-3 * torch.randn(y.shape, generator=generator, dtype=y.dtype)


@cache
def calm(name: str, spec: Any = SPEC, prompt: int = PROMPT, steps: int = STEPS, count: int = 2) -> list[Text]:
    """Texts on which noise changes little: the policy has no near ties, which engines may resolve differently."""
    policy, found = case(name), []
    for seed in range(60):
        text = tokens(spec, prompt, steps, seed)
        exact, noisy = (decode(plain(policy, spec, kind=kind), *text).logits for kind in (PlainEngine, NoisyEngine))
        if (exact - noisy).abs().max() < (0.4 if name in QUANTISED else 0.2):
            found.append(text)
        if len(found) == count:
            return found
    raise AssertionError(f"{name} has a near tie on almost every text")


def tokens(spec: Any = SPEC, prompt: int = PROMPT, steps: int = STEPS, seed: int = 5) -> Text:
    """A prompt, and the tokens that are decoded after it regardless of the logits."""
    return random_tokens(spec, prompt, seed), random_tokens(spec, steps, seed + 100)


def decode(decoder: Decoder, prompt: list[int], text: list[int]) -> Decoded:
    """Prefill and as many steps as `text` has tokens."""
    cache = Cache.empty(decoder.spec.n_layers)
    run(decoder.prefill(run(decoder.embed(prompt, len(prompt), 0)), cache))
    logits, held = [], []
    for token in text:
        before = list(cache.tokens)
        logits.append(run(decoder.step(run(decoder.embed([token], 1, cache.position)), cache)))
        held.append([tokens + 1 for tokens in before])
    return Decoded(torch.cat(logits), held, list(cache.tokens))
