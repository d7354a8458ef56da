"""Training of Attention-Gate's gates (arXiv 2410.12876, equation 1, with the absolute value that reviewers ask for)."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from orchestrator.training.task import Observed, Task
from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import run
from parties.heads.format import Kind
from parties.policies.full import Full

SCORE_LIMIT = 24.0
"""Limit on the gate's attention scores during training; private engines allow up to 40."""


class AttentionGateTask(Task):
    """Attention-Gate's gates.

    The gates rate the context's tokens; gates below the threshold of 1/2 are closed, and the model runs the answer
    on the open tokens. The loss is the language model's on the answer plus `pressure` times the sum over layers of
    |mean of the layer's gates - keep|. The paper omits the absolute value, without which `keep` is not a target. Closed
    and open are 0 and 1 in the forward pass; gradients are those of the sigmoid (straight-through estimator).

    A third term, which is ours, keeps the gate's own attention within the fixed-point range of private engines: the
    excess of its queries' and keys' squared norms over SCORE_LIMIT, so that their products stay below the limit.
    """

    kind: ClassVar[Kind] = "attention_gate"
    objective: ClassVar[tuple[str, ...]] = ("language", "eviction", "range")

    def size(self, layer: int, part: str) -> float:
        """Initial size 2 for queries and keys: a gate with uniform attention rates all tokens the same."""
        return 2 / self.backbone.gain(layer) if part == "in" else 1.0

    def observe(self, window: list[int]) -> Observed:
        """`normal` [layers, context, hidden], `k` and `v` [layers, kv_heads, context, head_dim], and `answer`."""
        context = self.settings.context
        layers = self.backbone.watch(window[:context])
        kept = {name: torch.stack([getattr(seen, name).half() for seen in layers]) for name in ("normal", "k", "v")}
        return kept | {"answer": torch.tensor(window[context:])}

    def loss(self, parameters: Mapping[str, Tensor], seen: Observed) -> dict[str, Tensor]:
        """`language`, `eviction` and `range`."""
        normal = seen["normal"].float()
        gates = straight_through(gate_logits(parameters, normal))
        share = gates.mean((1, 2))
        return {
            "language": self._language(gates, seen),
            "eviction": self.settings.pressure * (share - self.settings.keep).abs().sum(),
            "range": excess(parameters, normal),
        }

    def _language(self, gates: Tensor, seen: Observed) -> Tensor:
        """Mean negative log-likelihood of all tokens of the answer but the first, given the open tokens."""
        backbone, answer = self.backbone, seen["answer"]
        cache = Cache.empty(backbone.spec.n_layers)
        cache.position = cache.prompt = seen["k"].shape[2]
        for layer, here in enumerate(cache.layers):
            here.k, here.v = seen["k"][layer].float(), seen["v"][layer].float()
            here.state["gates"] = gates[layer]
        decoder = Decoder(backbone.engine, backbone.spec, Full())
        tokens = answer[:-1].tolist()
        logits = run(decoder.follow(run(decoder.embed(tokens, len(tokens), cache.position)), cache))
        return functional.cross_entropy(backbone.spec.capped(logits), answer[1:].to(logits.device))


def gate_logits(parameters: Mapping[str, Tensor], normal: Tensor) -> Tensor:
    """The gates before their sigmoid: [layers, tokens, hidden] -> [layers, kv_heads, tokens]."""
    layers, n, _ = normal.shape
    q, k, v = _projected(parameters, normal)
    mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(layers, n, -1)
    return (mixed @ parameters["out"] + parameters["out.bias"].unsqueeze(1)).transpose(1, 2)


def excess(parameters: Mapping[str, Tensor], normal: Tensor) -> Tensor:
    """The excess of |q|^2 / sqrt(width) and |k|^2 / sqrt(width) over SCORE_LIMIT; means, summed over layers and heads.

    Where it is zero, no score q . k / sqrt(width) exceeds the limit either (Cauchy-Schwarz).
    """
    over = torch.zeros(())
    for rows in _projected(parameters, normal)[:2]:
        lengths = rows.square().sum(-1) / rows.shape[-1] ** 0.5
        over = over.to(rows.device) + functional.relu(lengths - SCORE_LIMIT).mean(2).sum()
    return over


def _projected(parameters: Mapping[str, Tensor], normal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of the gates, [layers, kv_heads, tokens, width] each."""
    layers, n, _ = normal.shape
    rows = (normal @ parameters["in"]).reshape(layers, n, 3, parameters["out"].shape[2], -1)
    q, k, v = rows.transpose(1, 3).unbind(2)
    return q, k, v


def straight_through(logits: Tensor) -> Tensor:
    """1 where sigmoid(logit) >= 1/2, else 0, with the gradient of the sigmoid."""
    soft = logits.sigmoid()
    return (logits >= 0).to(soft.dtype) + soft - soft.detach()
