"""MiKV (arXiv 2402.18096): keeps every token, the less important ones in few bits."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from parties.decoding.program import Program, parallel, staged
from parties.policies.base import Policy, kept_share
from parties.policies.checks import OutOfRange, share, whole
from parties.policies.decoding import reach
from parties.policies.eviction import by_key_head
from parties.policies.prompt_scores import attention_of
from parties.policies.quantise import quantised

if TYPE_CHECKING:
    from parties.decoding.cache import Cache, LayerCache
    from parties.engines.base import Engine

_LEAST = 2.0**-5
"""Least maximum of a channel; smaller ones are replaced, so that no channel is divided by zero."""


@dataclass(frozen=True)
class MiKV(Policy):
    """Keeps every token, by key head the important ones unchanged and the others in `nbits` bits.

    Importance is accumulated attention, as in `h2o`; the most recent tokens count as important. A layer's cache holds
    the quantised tokens first and the important ones after them, both in order; their numbers are public, their
    identity is not. Every `compression_interval` steps as many important tokens are demoted. With `balancer` each
    channel of the keys is multiplied, before quantisation, by sqrt(max |q| / max |k|) over the prompt's queries and
    keys, and divided by it afterwards; the paper divides the query instead.

    Attributes:
        compression_ratio: Share of the prompt's tokens that is quantised, in [0, 1).
        compression_interval: Number of tokens decoded between two demotions; 1 as published.
        recent: Share of the important tokens for the most recent ones, in [0, 1].
        nbits: Bits of a quantised number, 1 to 8.
        balancer: Whether channels of quantised keys are balanced.
    """

    name: ClassVar[str] = "mikv"
    keeps: ClassVar[str] = "every token, by key head the less important ones in `nbits` bits; a step attends to all"
    prefill_cost: ClassVar[str] = (
        "H n^2 exponentials and as many products; two selections among n by key head, which move 4 G n rows; 2^b + 1 "
        "comparisons per quantised number, 2 G d (n - B) of them; (H + G) n d comparisons for the balancer"
    )
    step_cost: ClassVar[str] = (
        "H T products to divide the weights; every W steps two selections among B + W by key head, which move "
        "4 G (B + W) rows, and 2^b + 1 comparisons per quantised number, 2 G d W of them"
    )
    source: ClassVar[str] = (
        "Yang et al., arXiv 2402.18096, no released code. Groups of half a head; importance by attention summed over "
        "the heads of a group; every W steps instead of every step; the ring is not narrowed for the quantised tokens"
    )
    by_head: ClassVar[bool] = True

    draft_fix: ClassVar[str] = "take a larger compression_interval"

    compression_ratio: float = 0.5
    compression_interval: int = 64
    recent: float = 0.5
    nbits: int = 2
    balancer: bool = True

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A parameter is outside its range; the message names it, its value and the allowed values.
        """
        share("compression_ratio", self.compression_ratio, one=False)
        share("recent", self.recent)
        for name in ("compression_interval", "nbits"):
            whole(name, getattr(self, name), 1)
        if self.nbits > 8:
            raise OutOfRange("nbits", self.nbits, "at most 8: each number is compared with 2^nbits levels")
        if type(self.balancer) is not bool:
            raise OutOfRange("balancer", self.balancer, "true or false")

    @property
    def observes(self) -> bool:
        """Whether every step's attention is added to the sums."""
        return self.compression_ratio > 0

    def begin_tokens(self, count: int) -> dict[str, torch.Tensor]:
        """Zeros."""
        return {"score": torch.zeros(count)}

    def step_name(self, cache: "Cache", layer: int) -> Hashable | None:
        """Steps without a demotion are alike; those with one recur soon only if each has one."""
        here, generated = cache.layers[layer], cache.position - cache.prompt + 1
        demotes = self.compression_ratio > 0 and generated % self.compression_interval == 0
        if demotes and self.compression_interval > 1:
            return None
        quantised = here.tokens + here.room - here.state["score"].shape[1] if self.compression_ratio else 0
        return (reach(cache), quantised)

    def layer_kind(self, layer: int, n_layers: int) -> Hashable:  # noqa: ARG002
        """All layers are alike."""
        return ()

    def after_prefill(self, engine: "Engine", cache: "Cache", layer: int, q: Any) -> Program[None]:
        """Balances channels, sums the prompt's attention, and quantises the tokens with the least of it."""
        if self.compression_ratio:
            yield from staged(engine.meter, "evict", self._begin(engine, cache.layers[layer], q))

    def pass_key(self, tokens: int, generated: int) -> Hashable | None:  # noqa: ARG002
        """The interval between two demotions, of which the last step demotes; none if every step does."""
        if not self.compression_ratio:
            return ()
        return None if self.compression_interval == 1 else (generated - 1) // self.compression_interval

    def after_attention(self, engine: "Engine", cache: "Cache", layer: int, weights: Any) -> Program[None]:
        """Adds a step's attention to the sums, and demotes tokens at the end of each interval."""
        if not self.compression_ratio:
            return
        here, generated = cache.layers[layer], cache.position - cache.prompt + 1
        score = here.state["score"]
        kv_heads, columns = score.shape
        bound = reach(cache) * weights.shape[0] // kv_heads
        added = by_key_head(weights, kv_heads)[:, weights.shape[2] - columns :]
        here.state["score"] = engine.bounded(score, bound) + added
        if generated % self.compression_interval == 0:
            budget = kept_share(cache.prompt, self.compression_ratio)
            yield from staged(engine.meter, "evict", self._demote(engine, here, budget, bound))

    def _begin(self, engine: "Engine", here: "LayerCache", q: Any) -> Program[None]:
        kv_heads, n = here.k.shape[0], here.tokens
        if self.balancer:
            yield from self._balance(engine, here, q)
        here.state["score"] = yield from attention_of(engine, q, here.k, 0, lambda w: by_key_head(w, kv_heads))
        bound = float(n * q.shape[0] // kv_heads + 1)
        yield from self._demote(engine, here, kept_share(n, self.compression_ratio), bound)

    def _balance(self, engine: "Engine", here: "LayerCache", q: Any) -> Program[None]:
        """Computes each channel's factor a / sqrt(a b) and its inverse, [kv_heads, 1, d]: a = max |q|, b = max |k|."""
        (kv_heads, _, d), (heads, n, _) = here.k.shape, q.shape
        queries = q.reshape(kv_heads, heads // kv_heads * n, d)
        a, b = yield from parallel(*(engine.largest(engine.cat([x, -x], dim=1), dim=1) for x in (queries, here.k)))
        least = engine.constant(torch.full((kv_heads, 1, d), _LEAST))
        a, b = yield from parallel(engine.maximum(a, least), engine.maximum(b, least))
        root = yield from engine.inverse_root((yield from engine.mul(a, b)))
        factors = yield from parallel(engine.mul(a, root), engine.mul(b, root))
        here.state["balance"], here.state["unbalance"] = factors

    def _demote(self, engine: "Engine", here: "LayerCache", budget: int, bound: float) -> Program[None]:
        """Quantises all but the `budget` most important of the tokens that `score` rates."""
        score = engine.bounded(here.state["score"], bound)
        kv_heads, rated = score.shape[0], score.shape[1] - here.room
        first, recent = here.tokens - rated, int(budget * self.recent)
        m, count = rated - recent, budget - recent
        if rated <= budget:
            return
        parts = [row[:, first : first + m] for row in (here.k, here.v)]
        stay: list[Any] = [row[:, :0] for row in parts]
        left = score[:, :0]
        if count:
            kept = yield from engine.keep_top(score[:, :m], count)
            flags = yield from engine.flags(kept, m)
            others = yield from engine.kept_from(engine.constant(torch.ones(kv_heads, m)) - flags, m - count)
            *stay, left = yield from engine.compact(kept, [*parts, score[:, :m].reshape(kv_heads, m, 1)])
            left = left.reshape(kv_heads, count)
            parts = yield from engine.compact(others, parts)
        low = yield from self._quantised(engine, here, *parts)
        for name, few, many in zip(("k", "v"), low, stay, strict=True):
            row = getattr(here, name)
            setattr(here, name, engine.cat([row[:, :first], few, many, row[:, first + m :]], dim=1))
        here.state["score"], here.room = engine.cat([left, score[:, m:rated]], dim=1), 0

    def _quantised(self, engine: "Engine", here: "LayerCache", k: Any, v: Any) -> Program[list[Any]]:
        """Quantises keys and values in groups of half a head."""
        half = max(1, k.shape[2] // 2)
        if self.balancer:
            k = yield from engine.mul(k, here.state["balance"])
        low = yield from parallel(*(quantised(engine, x, self.nbits, half) for x in (k, v)))
        if self.balancer:
            low[0] = engine.to_cache((yield from engine.mul(low[0], here.state["unbalance"])))
        return low
