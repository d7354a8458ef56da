"""Selection of clusters of adjacent tokens, shared by the policies that select at each step."""

from typing import TYPE_CHECKING, Any

from parties.decoding.clusters import Selection
from parties.decoding.program import Program, staged

if TYPE_CHECKING:
    from parties.engines.base import Engine


SIMILARITY_BITS = 9
"""Fraction bits by which similarities are ranked: clusters whose similarities differ by 2^-9 serve a step alike."""


def best_of(
    engine: "Engine", scores: Any, count: int, *, fraction_bits: int = 16, spare_rounds: bool = False
) -> Program[Any]:
    """Returns the engine's handle on the `count` highest of each row of `scores` [heads, clusters], at least one."""
    orphans = (None,) * scores.shape[1]
    program = engine.top_clusters(
        scores[:, :0], scores, orphans, 0, count, fraction_bits=fraction_bits, spare_rounds=spare_rounds
    )
    return staged(engine.meter, "topk", program)


def select(
    engine: "Engine",
    scores: Any,
    count: int,
    first: int,
    size: int,
    always: tuple[tuple[int, int], ...],
    *,
    spare_rounds: bool = False,
) -> Program[Selection]:
    """Selects the top `count` of adjacent clusters.

    Args:
        engine: The engine.
        scores: Scores of the clusters, [heads, clusters]; not used if `count` is 0.
        count: Number of clusters to select.
        first: Index of the first cluster's first token.
        size: Number of tokens in a cluster.
        always: Spans that are always attended to.
        spare_rounds: See `Operations.top_clusters`.
    """
    selected = None
    if count:
        selected = yield from best_of(engine, scores, count, fraction_bits=SIMILARITY_BITS, spare_rounds=spare_rounds)
    span = (first, first + (scores.shape[1] if count else 0) * size)
    return Selection(size, tuple(part for part in always if part[0] < part[1]), span, count, selected)
