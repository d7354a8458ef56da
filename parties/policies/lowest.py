"""The lowest of many by a tournament of small groups, for evicting a single token."""

from typing import TYPE_CHECKING, Any

import torch

from parties.decoding.program import Program

if TYPE_CHECKING:
    from parties.engines.base import Engine

GROUP = 8
"""Candidates in a group: all pairs are compared at once, so larger groups save rounds and cost comparisons."""


def lowest(engine: "Engine", scores: Any, bound: float) -> Program[Any]:
    """Computes the one-hot vector of the lowest of each row of `scores` [rows, n]; the higher index among equals.

    About 4.6 n comparisons per row in ceil(log8 n) levels; ranking all pairs takes n^2 / 2.

    Args:
        engine: The engine.
        scores: Scores, [rows, n].
        bound: All |scores| are below it.
    """
    rows, n = scores.shape
    backwards = torch.arange(n - 1, -1, -1)
    keys, found = -scores[:, backwards], []
    while (m := keys.shape[1]) > 1:
        size = min(GROUP, m)
        if short := -m % size:
            keys = engine.cat([keys, engine.constant(torch.full((rows, short), -bound))], dim=1)
        groups = rows * (m + short) // size
        candidates = keys.reshape(groups, size)
        best = yield from engine.top_clusters(candidates[:, :0], candidates, (None,) * size, 0, 1)
        payload = engine.cat([candidates.reshape(groups, size, 1), _identity(engine, groups, size)], dim=2)
        selected = (yield from engine.pick(best, payload)).reshape(groups, size + 1)
        keys = selected[:, 0].reshape(rows, groups // rows)
        found.append(selected[:, 1:].reshape(rows, groups // rows, size))
    chosen = engine.constant(torch.ones(rows, 1))
    places = [n, *(level.shape[1] for level in found)]  # candidates of each level, without padding
    for level, count in reversed(list(zip(found, places, strict=False))):
        both = yield from engine.mul(level, chosen.reshape(rows, level.shape[1], 1))
        chosen = both.reshape(rows, level.shape[1] * level.shape[2])[:, :count]
    return chosen[:, backwards]


def _identity(engine: "Engine", groups: int, size: int) -> Any:
    return engine.constant(torch.eye(size).expand(groups, size, size).contiguous())
