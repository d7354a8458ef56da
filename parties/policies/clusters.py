"""Selection of clusters of adjacent tokens, shared by the policies that select at each step."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from parties.decoding.clusters import Selection
from parties.decoding.program import Program, parallel, staged

if TYPE_CHECKING:
    from parties.decoding.cache import LayerCache
    from parties.engines.base import Engine


Use = Literal["scores", "rows", "auto"]
USES = get_args(Use)
"""How an engine may attend to a selection; `auto` is resolved by the links of a cell."""

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
    layer: "LayerCache",
    scores: Any,
    count: int,
    first: int,
    size: int,
    always: tuple[tuple[int, int], ...],
    *,
    use: Use = "scores",
    spare_rounds: bool = False,
) -> Program[Selection]:
    """Selects the top `count` of adjacent clusters of a layer.

    Args:
        engine: The engine.
        layer: The layer.
        scores: Scores of the clusters, [heads, clusters]; not used if `count` is 0.
        count: Number of clusters to select.
        first: Index of the first cluster's first token.
        size: Number of tokens in a cluster.
        always: Spans that are always attended to.
        use: One of USES.
        spare_rounds: See `Operations.top_clusters`.
    """
    selected = None
    if count:
        selected = yield from best_of(engine, scores, count, fraction_bits=SIMILARITY_BITS, spare_rounds=spare_rounds)
    span = (first, first + (scores.shape[1] if count else 0) * size)
    made = Selection(size, tuple(part for part in always if part[0] < part[1]), span, count, selected)
    (selection,) = yield from prepared(engine, made, [layer], use)
    return selection


def prepared(
    engine: "Engine", selection: Selection, layers: Sequence["LayerCache"], use: Use
) -> Program[list[Selection]]:
    """Returns a selection for each of the layers that share it, with their rows if these are used. 1 round for rows."""
    if use != "rows" or not selection.count:
        return [selection] * len(layers)
    rows = yield from parallel(*(engine.fetch(selection, layer) for layer in layers))
    return [replace(selection, rows=fetched) for fetched in rows]
