"""Selection of clusters of adjacent tokens, shared by the policies that select at each step."""

from typing import TYPE_CHECKING, Any

from parties.decoding.clusters import Selection
from parties.decoding.program import Program, staged

if TYPE_CHECKING:
    from parties.engines.base import Engine


def best_of(engine: "Engine", scores: Any, count: int) -> Program[Any]:
    """Returns the engine's handle on the `count` highest of each row of `scores` [heads, clusters], at least one."""
    return staged(engine.meter, "topk", engine.top_clusters(scores[:, :0], scores, (None,) * scores.shape[1], 0, count))


def select(
    engine: "Engine", scores: Any, count: int, first: int, size: int, always: tuple[tuple[int, int], ...]
) -> Program[Selection]:
    """Selects the top `count` of adjacent clusters.

    Args:
        engine: The engine.
        scores: Scores of the clusters, [heads, clusters]; not used if `count` is 0.
        count: Number of clusters to select.
        first: Index of the first cluster's first token.
        size: Number of tokens in a cluster.
        always: Spans that are always attended to.
    """
    selected = (yield from best_of(engine, scores, count)) if count else None
    span = (first, first + (scores.shape[1] if count else 0) * size)
    return Selection(size, tuple(part for part in always if part[0] < part[1]), span, count, selected)
