"""Eviction of tokens from a layer: their rows are removed, or stay and are masked."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from parties.decoding.program import Program
from parties.policies.base import Policy, kept_share
from parties.policies.checks import one_of, share
from parties.policies.lowest import lowest

if TYPE_CHECKING:
    from parties.decoding.cache import LayerCache
    from parties.engines.base import Engine


@dataclass(frozen=True)
class Eviction(Policy):
    """A policy that evicts tokens down to a public number.

    In `compact` mode the rows of evicted tokens are removed from the cache, secretly, and kept rows stay in order. In
    `mask` mode they stay in place, and a secret flag per row removes its score from the softmax. Both decode the same
    tokens; masking moves no rows and saves no work.

    Attributes:
        compression_ratio: Share of the prompt's tokens that is removed, in [0, 1); 0 keeps everything.
        mode: What happens to evicted rows, `compact` or `mask`.
    """

    per_token: ClassVar[tuple[str, ...]] = ()
    """Names of the state per token, [kv_heads, tokens], which is evicted with the tokens."""

    compression_ratio: float = 0.5
    mode: Literal["compact", "mask"] = "compact"

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A parameter is outside its range; the message names it, its value and the allowed values.
        """
        share("compression_ratio", self.compression_ratio, one=False)
        one_of("mode", self.mode, ("compact", "mask"))

    def budget(self, prompt: int) -> int:
        """Number of prompt tokens that count after the eviction."""
        return kept_share(prompt, self.compression_ratio)

    def begin_tokens(self, count: int) -> dict[str, torch.Tensor]:
        """Zeros."""
        return {name: torch.zeros(count) for name in self.per_token}

    def cached(self, prompt: int) -> int:
        """The budget; all of the prompt if evicted rows stay."""
        return self.budget(prompt) if self.mode == "compact" else prompt

    def evict(
        self, engine: "Engine", here: "LayerCache", scores: Any, first: int, target: int, going: int, bound: float
    ) -> Program[None]:
        """Evicts the lowest of the candidates; all other tokens are kept.

        Args:
            engine: The engine.
            here: The layer.
            scores: Scores of the candidates, tokens `first`, `first + 1`, ...: [kv_heads, m], or [1, m] for all heads.
            first: Number of tokens before the candidates.
            target: Number of the layer's tokens that count afterwards.
            going: Number of tokens that are evicted; among equals the higher index is.
            bound: All |scores| are below it.
        """
        if going <= 0:
            return
        groups, m = scores.shape
        span, count = slice(first, first + m), target - (here.tokens - m)
        scores = engine.bounded(scores, bound)
        dead = None if here.alive is None else _ones(engine, groups, m) - here.alive[:, span]
        if count == 0:
            kept, flags = None, engine.constant(torch.zeros(groups, m))
        elif going == 1:
            candidates = scores if dead is None else engine.bounded(scores + dead * (2 * bound), 3 * bound)
            gone = yield from lowest(engine, candidates, 3 * bound)
            gone = gone if dead is None else gone + dead
            half = engine.constant(torch.tensor(0.5))
            flags = yield from engine.negative(engine.bounded(gone - half, 4.0))  # exactly 0 or 1; products are rounded
            kept = None if self.mode == "mask" else (yield from engine.kept_from(flags, count))
        else:
            candidates = scores if dead is None else engine.bounded(scores - dead * (2 * bound), 3 * bound)
            kept = yield from engine.keep_top(candidates, count)
            flags = (yield from engine.flags(kept, m)) if self.mode == "mask" else None
        if self.mode == "compact":
            yield from self.take(engine, here, kept, span)
        else:
            alive = _ones(engine, groups, here.tokens + here.room) if here.alive is None else here.alive
            here.alive = engine.cat([alive[:, :first], flags, alive[:, first + m :]], dim=1)

    def take(self, engine: "Engine", here: "LayerCache", kept: Any, span: slice) -> Program[None]:
        """Reduces a span of the layer to the rows that a handle keeps; to none if it is None."""
        state = {name: here.state[name] for name in self.per_token}
        rows = [here.k, here.v, *(value.reshape(*value.shape, 1) for value in state.values())]
        parts = [row[:, span] for row in rows]
        parts = [part[:, :0] for part in parts] if kept is None else (yield from engine.compact(kept, parts))
        joined = [
            engine.cat([row[:, : span.start], part, row[:, span.stop : here.tokens]], dim=1)
            for row, part in zip(rows, parts, strict=True)
        ]
        (here.k, here.v), here.room = joined[:2], 0
        for name, value in zip(state, joined[2:], strict=True):
            here.state[name] = value.reshape(value.shape[0], value.shape[1])


def by_key_head(weights: Any, kv_heads: int) -> Any:
    """Sums attention weights [heads, n, tokens] over queries and over the heads of a group: [kv_heads, tokens]."""
    heads, n, tokens = weights.shape
    return weights.reshape(kv_heads, heads // kv_heads * n, tokens).sum(1)


def _ones(engine: "Engine", groups: int, m: int) -> Any:
    return engine.constant(torch.ones(groups, m))
