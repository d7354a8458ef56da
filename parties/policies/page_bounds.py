"""Page bounds: the largest and the smallest value of each coordinate over the keys of a cluster of adjacent tokens.

Quest (arXiv 2406.10774) calls them page metadata, MPCache (arXiv 2501.06807) merges them. They are part of a layer's
state, as `high_<level>` and `low_<level>`, [kv_heads, clusters, head_dim]; the last cluster may be incomplete.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from parties.decoding.program import Program, parallel

if TYPE_CHECKING:
    from parties.decoding.cache import LayerCache
    from parties.engines.base import Engine

KEY_LIMIT, QUERY_LIMIT = 64.0, 128.0  # bounds of the compared coordinates

Levels = Mapping[str, int]
"""Number of tokens per cluster, by the level's name."""


def compute_bounds(engine: "Engine", here: "LayerCache", levels: Levels) -> Program[None]:
    """Computes the bounds of all clusters of a layer: 2 G d (n - clusters) comparisons per level."""
    keys = engine.bounded(here.k, KEY_LIMIT)
    both = engine.cat([keys, -keys], dim=0)
    bounds = yield from parallel(*(_largest_by_cluster(engine, both, size) for size in levels.values()))
    for level, ends in zip(levels, bounds, strict=True):
        heads = here.k.shape[0]
        here.state[f"high_{level}"], here.state[f"low_{level}"] = ends[:heads], -ends[heads:]


def _largest_by_cluster(engine: "Engine", rows: Any, size: int) -> Program[Any]:
    """Computes the maxima of runs of `size` rows of [heads, n, d]: [heads, clusters, d]."""
    heads, n, d = rows.shape
    full = n // size * size
    parts = []
    if full:
        parts.append(engine.largest(rows[:, :full].reshape(heads, full // size, size, d), dim=2))
    if full < n:
        parts.append(engine.largest(rows[:, full:].reshape(heads, 1, n - full, d), dim=2))
    found = yield from parallel(*parts)
    return engine.cat([part.reshape(heads, part.shape[1], d) for part in found], dim=1)


def update_bounds(engine: "Engine", here: "LayerCache", levels: Levels) -> Program[None]:
    """Adds the newest token to the last cluster of each level: 2 G d comparisons per level, all in parallel."""
    key, heads = engine.bounded(here.newest, KEY_LIMIT), here.k.shape[0]
    joined = [level for level, size in levels.items() if (here.tokens - 1) % size]
    if joined:
        ends = [
            end
            for level in joined
            for end in (here.state[f"high_{level}"][:, -1:], -here.state[f"low_{level}"][:, -1:])
        ]
        larger = yield from engine.maximum(engine.cat(ends, dim=0), engine.cat([key, -key] * len(joined), dim=0))
    for level in levels:
        high, low = here.state[f"high_{level}"], here.state[f"low_{level}"]
        new_high = new_low = key
        if level in joined:
            at = 2 * joined.index(level) * heads
            new_high, new_low = larger[at : at + heads], -larger[at + heads : at + 2 * heads]
            high, low = high[:, :-1], low[:, :-1]
        here.state[f"high_{level}"] = engine.cat([high, new_high], dim=1)
        here.state[f"low_{level}"] = engine.cat([low, new_low], dim=1)


def upper_bounds(engine: "Engine", here: "LayerCache", level: str, clusters: range, q: Any) -> Program[Any]:
    """Computes the upper bounds of q . k over the keys of some clusters: [heads, clusters].

    sum_i max(q_i low_i, q_i high_i) = q . (high + low) / 2 + |q| . (high - low) / 2: exact, with one comparison per
    coordinate of the query instead of one per coordinate and cluster.
    """
    q = engine.bounded(q, QUERY_LIMIT)
    magnitude = yield from engine.maximum(q, -q)
    high, low = (here.state[f"{end}_{level}"][:, clusters.start : clusters.stop] for end in ("high", "low"))
    centres = engine.cat([(high + low) * 0.5, (high - low) * 0.5], dim=2)
    bounds = yield from engine.scores(engine.cat([q, magnitude], dim=2), centres)
    return engine.bounded(bounds[:, 0], 1024.0)
