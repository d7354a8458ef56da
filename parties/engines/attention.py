"""Attention, composed of the operations of an engine, which may replace any part of it by something faster."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch

from parties.decoding.cache import LayerCache
from parties.decoding.clusters import Selection
from parties.decoding.program import Program, parallel, staged
from parties.engines.operations import MatrixProduct, Operations


class Attention(Operations):
    """Attention over all cached tokens, or over a selection of them.

    Attributes:
        scores_early: Whether a token's scores may be computed with its projection: `scored_projection`.
        score_cap: Cap of attention scores in the model that is decoded; 0: none.
    """

    scores_early: ClassVar[bool] = False
    score_cap: float = 0.0

    @staticmethod
    def causal_mask(first: int, n: int, window: int = 0) -> torch.Tensor:
        """The mask of n tokens for queries at positions first..n-1, True where a query may attend: [n - first, n].

        Args:
            first: Position of the first query.
            n: Number of tokens.
            window: Latest tokens that a query attends to, its own included; 0: all.
        """
        queries, keys = torch.arange(first, n).unsqueeze(1), torch.arange(n)
        seen = keys <= queries  # a byte per pair, and no difference of 8
        return seen & (keys > queries - window) if window else seen

    def scores(self, q: Any, k: Any) -> Program[Any]:
        """Q . k for grouped heads: [heads, n, d], [kv_heads, t, d] -> [heads, n, t]."""
        heads, n, d = q.shape
        grouped = q.reshape(k.shape[0], heads // k.shape[0] * n, d)
        product = yield from self.matmul(grouped, k.transpose(1, 2))
        return product.reshape(heads, n, k.shape[1])

    def attention_scores(self, q: Any, k: Any) -> Program[Any]:
        """The result of `scores`, capped if the model caps it."""
        scores = yield from self.scores(q, k)
        return (yield from self.soft_cap(scores, self.score_cap)) if self.score_cap else scores

    def weigh(self, weights: Any, v: Any) -> Program[Any]:
        """Weighted sum of values for grouped heads: [heads, n, t], [kv_heads, t, d] -> [heads, n, d]."""
        heads, n, t = weights.shape
        grouped = weights.reshape(v.shape[0], heads // v.shape[0] * n, t)
        product = yield from self.matmul(grouped, v)
        return product.reshape(heads, n, v.shape[2])

    def softmax_weigh(
        self, scores: Any, combine: Callable[[Any], Program[Any]], mask: torch.Tensor | None = None
    ) -> Program[Any]:
        """combine(softmax(scores)) for a linear `combine`; an engine may divide by the sum after combining."""
        weights = yield from staged(self.meter, "softmax", self.softmax(scores, mask))
        return (yield from staged(self.meter, "attend", combine(weights)))

    def attend(self, q: Any, layer: LayerCache, mask: torch.Tensor | None = None, *, window: int = 0) -> Program[Any]:
        """Attention over everything cached that is alive: [heads, n, d] -> [heads, n, d].

        Args:
            q: Queries.
            layer: Keys and values.
            mask: True where a query may attend, [n, tokens]; None: the queries are those of the latest tokens.
            window: Without a mask, latest tokens that a query attends to, its own included; 0: all.
        """
        mask = self._latest(q, layer, window) if mask is None else mask
        scores = yield from self._alive_scores(q, layer)
        return (yield from self.softmax_weigh(scores, lambda weights: self.weigh(weights, layer.v), mask))

    def _latest(self, q: Any, layer: LayerCache, window: int = 0) -> torch.Tensor | None:
        """The mask for queries of the latest tokens; None if they attend to all, as one does without a window."""
        n, tokens = q.shape[1], layer.tokens
        return self.causal_mask(tokens - n, tokens, window) if n > 1 or 0 < window < tokens else None

    def attend_observed(self, q: Any, layer: LayerCache, mask: torch.Tensor | None = None) -> Program[tuple[Any, Any]]:
        """The result of `attend`, and the attention weights, [heads, n, tokens and the layer's room]."""
        mask = self._latest(q, layer) if mask is None else mask
        scores = yield from self._alive_scores(q, layer)
        weights = yield from staged(self.meter, "softmax", self.softmax(scores, mask))
        mixed = yield from staged(self.meter, "attend", self.weigh(weights, layer.v))
        return mixed, weights

    def causal_weights(self, q: Any, k: Any, first: int) -> Program[Any]:
        """Attention weights of some queries of a prompt: [heads, rows, d], [kv_heads, n, d] -> [heads, rows, n].

        Args:
            q: Queries.
            k: Keys of the whole prompt.
            first: Position of the first query.
        """
        scores = yield from self.attention_scores(q, k)
        return (yield from self.softmax(scores, self.causal_mask(first, k.shape[1])[: q.shape[1]]))

    def _alive_scores(self, q: Any, layer: LayerCache) -> Program[Any]:
        """Scores of a layer's keys; those of evicted rows that are still there count for nothing."""
        scores = yield from staged(self.meter, "scores", self.attention_scores(q, layer.k))
        if layer.alive is None:
            return scores
        heads, n, t = scores.shape
        groups, low = layer.alive.shape[0], self.constant(torch.tensor(self.masked_score))
        lifted = scores.reshape(groups, heads // groups * n, t) - low
        kept = yield from staged(self.meter, "scores", self.mul(lifted, layer.alive.reshape(groups, 1, t)))
        return (kept + low).reshape(heads, n, t)

    def scored_projection(
        self,
        rows: Any,
        eps: float,
        products: Sequence[MatrixProduct],
        turn: Callable[[Any], Any],
        layer: LayerCache,
        selection: Selection | None = None,
    ) -> Program[tuple[Any, Any, Any, list[Any]]]:
        """`normalised_linear` of a row of each lane and their attention scores, before keys and values join the layer.

        Only for engines that score early, and models whose queries and keys are products, without bias and norms.

        Args:
            rows: See `normalise`; one row of each sequence that the layer holds.
            eps: See `normalise`.
            products: Queries, keys and values of this layer; and others.
            turn: Gives queries and keys, [lanes * (heads + kv_heads), 1, head_dim], their positions; local.
            layer: The layer, with room for the token.
            selection: What the token will attend to; None: to all tokens.

        Returns:
            Keys, values, [lanes * kv_heads, 1, head_dim]; scores for `attend_scored`; and the other products.
        """
        raise NotImplementedError

    def attend_scored(
        self, scores: Any, layer: LayerCache, selection: Selection | None = None, *, window: int = 0
    ) -> Program[Any]:
        """`attend`, or `attend_selected`, with scores of `scored_projection`, once key and value have joined."""
        raise NotImplementedError

    def fetch(self, selection: Selection, layer: LayerCache) -> Program[tuple[Any, Any]]:
        """Keys and values of the selected clusters, at least one: [heads, count * size, d] each."""
        (a, b), d = selection.candidates, layer.k.shape[2]
        both = self.cat([layer.k[:, a:b], layer.v[:, a:b]], dim=2)
        blocks = both.reshape(both.shape[0], (b - a) // selection.size, selection.size * 2 * d)
        picked = yield from staged(self.meter, "gather", self.pick(selection.selected, blocks))
        rows = picked.reshape(picked.shape[0], selection.count * selection.size, 2 * d)
        return rows[:, :, :d], rows[:, :, d:]

    def attend_selected(self, q: Any, layer: LayerCache, selection: Selection) -> Program[Any]:
        """Attention over a selection, by fetching the chosen rows (MPCache's Pi_Gather): [heads, n, d].

        Args:
            q: Queries of the latest n tokens.
            layer: Keys and values.
            selection: What each of the n queries of each head attends to, as if there were n times as many heads.
        """
        heads, n, d = q.shape
        near = tuple(self.cat([rows[:, a:b] for a, b in selection.always], dim=1) for rows in (layer.k, layer.v))
        scores = [self.attention_scores(q, near[0])]
        if selection.count:
            far = selection.rows or (yield from self.fetch(selection, layer))
            scores.append(self.attention_scores(q if n == 1 else q.reshape(heads * n, 1, d), far[0]))
        found = yield from staged(self.meter, "scores", parallel(*scores))
        cut, mask = found[0].shape[2], self._latest(q, layer)
        if mask is not None:
            chosen = mask.new_ones(n, selection.count * selection.size)
            mask = torch.cat([*(mask[:, a:b] for a, b in selection.always), chosen], dim=1)

        def combine(weights: Any) -> Program[Any]:
            sums = [self.weigh(weights[:, :, :cut], near[1])]
            if selection.count:
                rest = weights[:, :, cut:]
                sums.append(self.weigh(rest if n == 1 else rest.reshape(heads * n, 1, rest.shape[2]), far[1]))
            mixed = yield from parallel(*sums)
            return mixed[0] if len(mixed) == 1 else mixed[0] + mixed[1].reshape(heads, n, d)

        parts = [part if n == 1 else part.reshape(heads, n, part.shape[2]) for part in found]
        return (yield from self.softmax_weigh(self.cat(parts, dim=2), combine, mask))
