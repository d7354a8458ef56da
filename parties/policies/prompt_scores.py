"""How much attention the prompt's tokens got from its queries, piece by piece so that memory stays bounded."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from parties.decoding.program import Program

if TYPE_CHECKING:
    from parties.engines.base import Engine

ROWS = 256
"""Queries whose attention is computed at once."""

SCORES = 1 << 23
"""Scores that are computed at once: an engine may take half a kilobyte for each."""


def attention_of(
    engine: "Engine", q: Any, k: Any, first: int, reduce: Callable[[Any], Any], rows: int = ROWS
) -> Program[Any]:
    """Sum over pieces of the prompt's queries of what `reduce` makes of their causal attention.

    Args:
        engine: the engine.
        q: queries of the prompt, [heads, n, head_dim], with position, scaled.
        k: its keys, [kv_heads, n, head_dim].
        first: the first query that counts.
        reduce: from weights [heads, queries, n] to something of one shape, linear.
        rows: queries of a piece, fewer where they would have more than `SCORES` scores.
    """
    n, total = k.shape[1], None
    rows = max(1, min(rows, SCORES // (q.shape[0] * n)))
    for start in range(first, n, rows):
        stop = min(start + rows, n)
        scores = yield from engine.scores(q[:, start:stop], k)
        weights = yield from engine.softmax(scores, engine.causal_mask(start, n)[: stop - start])
        part = reduce(weights)
        total = part if total is None else total + part
    return total
