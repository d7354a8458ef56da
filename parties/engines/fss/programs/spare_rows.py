"""Spare rows of a cache, which steps compute with so that shapes last, and the mask that hides them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from parties.decoding.cache import LayerCache
from parties.decoding.clusters import Selection, Span
from parties.engines.fss.arithmetic.values import Masked, cat
from parties.engines.fss.randomness.constants import Known
from parties.engines.fss.randomness.source import Source


def with_spare(source: Source, layer: LayerCache, queries: int = 1, window: int = 0) -> tuple[LayerCache, Known | None]:
    """The layer with its spare rows, whose scores the mask hides, while shapes shall last.

    For each of the queries of the latest tokens the mask also hides later tokens, and what is outside of a `window`
    of tokens up to its own, unless that is 0.
    """
    block, tokens = layer.spare(), layer.tokens
    if block is None:
        return layer, None
    places, own = torch.arange(block.capacity), torch.arange(tokens - queries, tokens).unsqueeze(1)

    def seen(more: int) -> Tensor:
        behind = own + more - places
        return ((behind >= 0) & (behind < (window or block.capacity))).long()

    return LayerCache(block.k, block.v, layer.alive), source.varying(seen, 0, 1.0, by_row=True)


def step_keys(source: Source, layer: LayerCache, selection: Selection | None, tokens: int) -> tuple[list[Masked], int]:
    """The keys whose scores a step computes, with spare rows, and the place of the newest of `tokens` tokens."""
    visible, _ = with_spare(source, layer)
    if selection is None or selection.rows is None:
        return [visible.k], tokens - 1
    spans = with_room(selection, tokens, visible.tokens)
    *earlier, (newest, _) = spans
    place = sum(stop - start for start, stop in earlier) + tokens - 1 - newest
    return [cat([visible.k[:, start:stop] for start, stop in spans], 1), selection.rows[0]], place


def with_room(selection: Selection, tokens: int, capacity: int) -> list[Span]:
    """The spans that are always attended to, the newest of `tokens` tokens followed by the spare rows."""
    return [(start, capacity if stop == tokens else stop) for start, stop in selection.always]


def seen_spans(seen: Known | None, spans: Sequence[Span], picked: int) -> Known | None:
    """The part of a mask in spans, followed by selected tokens, which all count."""
    if seen is None:
        return None
    within = [seen.integers[..., start:stop] for start, stop in spans]
    chosen = seen.integers.new_ones(*seen.integers.shape[:-1], picked)
    return Known(torch.cat([*within, chosen], -1), 0, 1.0)
