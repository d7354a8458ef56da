"""Attending to some runs of tokens: what the policies that select at each step have in common."""

from typing import TYPE_CHECKING, Any

from parties.decoding.clusters import Selection
from parties.decoding.program import Program, staged

if TYPE_CHECKING:
    from parties.engines.base import Engine


def best_of(engine: "Engine", scores: Any, count: int) -> Program[Any]:
    """The engine's handle on the `count` highest of each row of `scores` [heads, clusters], at least one."""
    return staged(engine.meter, "topk", engine.top_clusters(scores[:, :0], scores, (None,) * scores.shape[1], 0, count))


def select(
    engine: "Engine", scores: Any, count: int, first: int, size: int, always: tuple[tuple[int, int], ...]
) -> Program[Selection]:
    """A selection of the `count` best of adjacent clusters.

    Args:
        engine: the engine.
        scores: of the clusters, [heads, clusters]; not looked at if `count` is 0.
        count: clusters that are attended to.
        first: token at which the first cluster begins.
        size: tokens of a cluster.
        always: spans that are attended to anyway.
    """
    picks = (yield from best_of(engine, scores, count)) if count else None
    span = (first, first + (scores.shape[1] if count else 0) * size)
    return Selection(size, tuple(part for part in always if part[0] < part[1]), span, count, picks)
