"""Attention of a token, spare rows included: over all that is cached, or over a selection."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from parties.decoding.cache import LayerCache
from parties.decoding.clusters import Selection
from parties.decoding.program import Program, parallel, staged
from parties.engines.fss import bounds
from parties.engines.fss.arithmetic import gates
from parties.engines.fss.arithmetic.values import Masked, cat
from parties.engines.fss.functions import softmax
from parties.engines.fss.programs import products
from parties.engines.fss.programs.base import Programs
from parties.engines.fss.programs.spare_rows import seen_spans, step_keys, with_room, with_spare
from parties.engines.fss.randomness.constants import Known


class Attention(Programs):
    """Scores and weighted sums for grouped heads, and faster forms of what `parties.engines.attention` composes.

    A selection is attended to by rows that were fetched before, or by fetching scores, which are fewer numbers.
    """

    def attend(self, q: Masked, layer: LayerCache, mask: Tensor | None = None, *, window: int = 0) -> Program[Masked]:
        """See `Engine.attend`; a token's attention includes the spare rows."""
        visible, seen = (layer, None) if mask is not None else with_spare(self.source, layer, q.shape[1], window)
        return super().attend(q, visible, mask if seen is None else seen, window=window)  # type: ignore[arg-type]

    def attend_observed(
        self, q: Masked, layer: LayerCache, mask: Tensor | None = None
    ) -> Program[tuple[Masked, Masked]]:
        """See `Engine.attend_observed`; the spare rows have weights that count for nothing."""
        visible, seen = with_spare(self.source, layer, q.shape[1])
        return super().attend_observed(q, visible, mask if seen is None else seen)  # type: ignore[arg-type]

    def scores(self, q: Masked, k: Masked) -> Program[Masked]:
        """Q . k for grouped heads, with 32 fraction bits. 1 round."""
        heads, n, d = q.shape
        grouped = q.reshape(k.shape[0], heads // k.shape[0] * n, d)
        scores = yield from products.matmul(grouped, k.transpose(1, 2), bounds.SCORE_LIMIT)
        return scores.reshape(heads, n, k.shape[1])

    def weigh(self, weights: Masked, v: Masked) -> Program[Masked]:
        """Weighted sum of values for grouped heads. 1 round."""
        heads, n, t = weights.shape
        grouped = weights.reshape(v.shape[0], heads // v.shape[0] * n, t)
        mixed = yield from products.matmul(grouped, v, self._limit("mixed") * bounds.TOTAL_LIMIT)
        return gates.truncate(mixed).reshape(heads, n, v.shape[2])

    def softmax_weigh(
        self, scores: Masked, combine: Callable[[Masked], Program[Masked]], mask: Tensor | Known | None = None
    ) -> Program[Masked]:
        """Combines the exponentials and divides the result; their sum is inverted in parallel. See `softmax`."""
        weights = yield from staged(self.meter, "softmax", softmax.exponentials(scores, mask))
        mixed, inverse = yield from parallel(
            staged(self.meter, "attend", combine(weights)),
            staged(self.meter, "softmax", softmax.inverse_sums(weights)),
        )
        return (yield from staged(self.meter, "attend", softmax.divide(mixed, inverse, self._limit("mixed"))))

    def attend_selected(self, q: Masked, layer: LayerCache, selection: Selection) -> Program[Masked]:
        """Attention over a selection, by rows that were fetched, or by scores: see `attend_scored`."""
        keys, _ = step_keys(self.source, layer, selection, layer.tokens)
        scores = yield from staged(self.meter, "scores", parallel(*(self.attention_scores(q, part) for part in keys)))
        return (yield from self.attend_scored(cat(scores, 2), layer, selection))

    def attend_scored(
        self, scores: Masked, layer: LayerCache, selection: Selection | None = None, *, window: int = 0
    ) -> Program[Masked]:
        """See `Engine.attend_scored`: over all tokens, by fetched rows, or by fetching scores."""
        if selection is None:
            visible, seen = with_spare(self.source, layer, window=window)
            mixed: Program[Masked] = self.softmax_weigh(scores, lambda weights: self.weigh(weights, visible.v), seen)
            return mixed
        if selection.rows is not None:
            return self._attend_rows(scores, layer, selection, selection.rows[1])
        return self._attend_gathered(scores, layer, selection)

    def _attend_rows(self, scores: Masked, layer: LayerCache, selection: Selection, picked: Masked) -> Program[Masked]:
        """Attention over the values that were fetched, and those that are always attended to."""
        visible, seen = with_spare(self.source, layer, scores.shape[1])
        spans = with_room(selection, layer.tokens, visible.tokens)
        values: Masked = cat([visible.v[:, start:stop] for start, stop in spans], 1)
        cut = values.shape[1]

        def combine(weights: Masked) -> Program[Masked]:
            parts = [(weights[:, :, :cut], values), (weights[:, :, cut:], picked)]
            first, second = yield from parallel(*(self.weigh(part, rows) for part, rows in parts))
            mixed: Masked = first + second
            return mixed

        return self.softmax_weigh(scores, combine, seen_spans(seen, spans, picked.shape[1]))

    def _attend_gathered(self, scores: Masked, layer: LayerCache, selection: Selection) -> Program[Masked]:
        """Attention by fetching the selected *scores* of all and putting their weights back: [heads, n, d].

        Rows of keys and values are not moved: a score is one number, a row has head_dim.
        """
        meter, (heads, n, _) = self.meter, scores.shape
        visible, seen = with_spare(self.source, layer, n)
        a, b = selection.candidates
        always = with_room(selection, layer.tokens, visible.tokens)
        parts = [scores[:, :, start:stop] for start, stop in always]
        if selection.count:
            groups = selection.selected.rows.shape[0]
            blocks = _grouped(scores[:, :, a:b].reshape(heads * n, -1, selection.size), groups)
            fetched = yield from staged(meter, "gather", self.pick(selection.selected, blocks))
            parts.append(_ungrouped(fetched, heads * n).reshape(heads, n, -1))

        def combine(weights: Masked) -> Program[Masked]:
            lengths = [stop - start for start, stop in always]
            cuts = list(torch.tensor([0, *lengths]).cumsum(0).tolist())
            placed = [weights[:, :, i:j] for i, j in pairwise(cuts)]
            values = [visible.v[:, start:stop] for start, stop in always]
            if selection.count:
                picked = weights[:, :, cuts[-1] :].reshape(heads * n, selection.count, selection.size)
                chosen = _grouped(picked, groups)
                back = yield from staged(meter, "gather", gates.open_(selection.selected.put_back(chosen)))
                placed.append(_ungrouped(back, heads * n).reshape(heads, n, -1))
                values.append(visible.v[:, a:b])
            return (yield from self.weigh(cat(placed, 2), cat(values, 1)))

        seen = seen_spans(seen, always, selection.count * selection.size)
        return (yield from self.softmax_weigh(cat(parts, 2), combine, seen))


def _grouped(blocks: Masked, groups: int) -> Masked:
    """Blocks [heads, n, m] of the heads of a group next to each other: [groups, n, heads / groups * m]."""
    heads, n, m = blocks.shape
    return blocks.reshape(groups, heads // groups, n, m).transpose(1, 2).reshape(groups, n, heads // groups * m)


def _ungrouped(blocks: Masked, heads: int) -> Masked:
    """The inverse of `_grouped`."""
    groups, n, m = blocks.shape
    of_head = blocks.reshape(groups, n, heads // groups, m * groups // heads)
    return of_head.transpose(1, 2).reshape(heads, n, m * groups // heads)
