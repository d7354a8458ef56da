"""The lowest of many by a tournament of small groups: what evicting a single token needs."""

from typing import TYPE_CHECKING, Any

import torch

from parties.decoding.program import Program

if TYPE_CHECKING:
    from parties.engines.base import Engine

GROUP = 8
"""Rivals in a group: all pairs are compared at once, so larger groups save rounds and cost comparisons."""


def lowest(engine: "Engine", scores: Any, bound: float) -> Program[Any]:
    """Marks the lowest of each row of `scores` [rows, n] by a 1 among zeros; the higher index among equals.

    About 4.6 n comparisons a row in ceil(log8 n) levels, where ranking all pairs takes n^2 / 2.

    Args:
        engine: the engine.
        scores: [rows, n].
        bound: all |scores| are below it.
    """
    rows, n = scores.shape
    backwards = torch.arange(n - 1, -1, -1)
    keys, found = -scores[:, backwards], []
    while (m := keys.shape[1]) > 1:
        size = min(GROUP, m)
        if short := -m % size:
            keys = engine.cat([keys, engine.constant(torch.full((rows, short), -bound))], dim=1)
        groups = rows * (m + short) // size
        rivals = keys.reshape(groups, size)
        best = yield from engine.top_clusters(rivals[:, :0], rivals, (None,) * size, 0, 1)
        told = engine.cat([rivals.reshape(groups, size, 1), _identity(engine, groups, size)], dim=2)
        winner = (yield from engine.pick(best, told)).reshape(groups, size + 1)
        keys = winner[:, 0].reshape(rows, groups // rows)
        found.append(winner[:, 1:].reshape(rows, groups // rows, size))
    chosen = engine.constant(torch.ones(rows, 1))
    places = [n, *(level.shape[1] for level in found)]  # of each level, padding aside
    for level, count in reversed(list(zip(found, places, strict=False))):
        both = yield from engine.mul(level, chosen.reshape(rows, level.shape[1], 1))
        chosen = both.reshape(rows, level.shape[1] * level.shape[2])[:, :count]
    return chosen[:, backwards]


def _identity(engine: "Engine", groups: int, size: int) -> Any:
    return engine.constant(torch.eye(size).expand(groups, size, size).contiguous())
