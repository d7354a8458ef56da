"""The attention of the prompt's queries to its tokens, summed in blocks of queries so that memory stays bounded."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from parties.decoding.program import Program

if TYPE_CHECKING:
    from parties.engines.base import Engine

ROWS = 256
"""Number of queries whose attention is computed at once."""

SCORES = 1 << 23
"""Number of scores that are computed at once; an engine may take half a kilobyte per score."""


def attention_of(
    engine: "Engine", q: Any, k: Any, first: int, reduce: Callable[[Any], Any], rows: int = ROWS
) -> Program[Any]:
    """Sums `reduce` of the causal attention over blocks of the prompt's queries.

    Args:
        engine: The engine.
        q: Queries of the prompt, [heads, n, head_dim], with position, scaled.
        k: Keys of the prompt, [kv_heads, n, head_dim].
        first: Index of the first query that counts.
        reduce: Linear function of weights [heads, queries, n] whose result has the same shape for every block.
        rows: Number of queries in a block; fewer if they have more than `SCORES` scores, all on shapes alone.
    """
    n, total = k.shape[1], None
    rows = max(1, min(rows, SCORES // (q.shape[0] * n))) if engine.number_bytes else n
    for start in range(first, n, rows):
        stop = min(start + rows, n)
        weights = yield from engine.causal_weights(q[:, start:stop], k, start)
        part = reduce(weights)
        total = part if total is None else total + part
    return total
