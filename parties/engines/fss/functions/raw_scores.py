"""Attention scores of a query before its norm, in parallel with the inverse root by which they are multiplied.

(s q) . k = s (q . k): with q and the new token's own key as products of the rows that are not yet normalised, their
scores are opened in the round of the inverse root s. Then keys and values are multiplied by s, scores of cached keys by
s and the new token's own score by s^2, all in one round. Scores of 50 fraction bits go into the exponential as they
are, so they need no truncation.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from parties.decoding.program import Program, parallel
from parties.engines.fss.arithmetic import ring
from parties.engines.fss.arithmetic.gates import matmul, open_, truncate
from parties.engines.fss.arithmetic.multiplication import multiply
from parties.engines.fss.arithmetic.values import Additive, Masked, cat
from parties.engines.fss.bounds import OWN_RAW_SCORE, SCORE_LIMIT
from parties.engines.fss.functions.norm import SCALED_BITS
from parties.engines.fss.randomness.constants import Known

_SCALE = SCALED_BITS + ring.FRACTION_BITS  # of the scores
_COARSER = 3  # fraction bits less of one of two inverse roots, which the own score has more


@dataclass(frozen=True)
class RawScores:
    """Numbers of a row before its norm, as they were opened.

    Attributes:
        cached: Scores of cached keys, [lanes * heads, 1, t].
        own: The new tokens' own scores, [lanes * heads, 1, 1].
        rows: The new tokens' keys and values, [2 lanes * kv_heads, 1, head_dim].
    """

    cached: Masked
    own: Masked
    rows: Masked

    def scaled(self, root: Masked, place: Known, limit: float) -> Program[tuple[Masked, Masked]]:
        """Multiplies by inverse roots s, [lanes]: keys and values, 16 fraction bits, and scores, 50. 1 round.

        Error of a score: that of a query that was cut to 13 to 16 fraction bits b before it was multiplied by s, and
        relative 2^(b - 35) / s; of the new token's own 2^(2 b - 38) s^2, and relative 2^(b - 32) / s.

        Args:
            root: What `norm.row_roots` computed.
            place: One where the new token's own score belongs, and zero elsewhere, [t].
            limit: Bound of keys and values.

        Raises:
            TruncationFailure: See `truncate`.
        """
        bits = SCALED_BITS - self.rows.scale
        lanes = root.shape[0]
        coarse, root = (truncate(root, b).reshape(1, lanes, 1) for b in (bits - _COARSER, bits))
        roots = root.reshape(lanes, 1, 1), coarse.reshape(lanes, 1, 1)
        others = Known(1 - place.integers, 0, 1.0)
        cached, own = (scores.reshape(lanes, scores.shape[0] // lanes, -1) for scores in (self.cached, self.own))
        scores = multiply([cached, roots[0]], limit=SCORE_LIMIT) * others
        scores += multiply([own, *roots], limit=SCORE_LIMIT).expand(*cached.shape) * place
        rows, opened = yield from parallel(
            open_(multiply([self.rows.reshape(2, lanes, -1), root], limit=limit)),
            open_(scores.bounded(SCORE_LIMIT)),
        )
        return truncate(rows).reshape(*self.rows.shape), opened.reshape(*self.cached.shape)


def raw_scores(
    product: Masked, kv_heads: int, head_dim: int, turn: Callable[[Masked], Masked], keys: Sequence[Masked]
) -> Program[RawScores]:
    """Scores a row of queries, keys and values of each lane, [lanes, n], before its norm. 1 round.

    For each lane, with H query heads, t keys of G heads and head dimension d, 8 H (t + 1) online bytes each way;
    offline, to the server, as many, 8 (H + 2 G) d for the row, as much for its turned queries and keys if they have
    positions, and 8 H.

    Args:
        product: The row, within `NormInput.unscaled`, as it was opened.
        kv_heads: Key heads of a lane.
        head_dim: Their dimension.
        turn: Gives queries and keys, [lanes * (heads + kv_heads), 1, head_dim], their positions: a rotation.
        keys: Cached keys, each [lanes * kv_heads, t, head_dim] or [lanes * heads, t, head_dim], 16 fraction bits.

    Raises:
        TruncationFailure: See `truncate`.
    """
    source, cut = product.source, truncate(product, product.scale - ring.FRACTION_BITS)
    lanes, all_heads = cut.shape[0], cut.shape[1] // head_dim
    rows, heads = cut.reshape(lanes, all_heads, head_dim), all_heads - 2 * kv_heads
    turned = truncate(turn(rows[:, : heads + kv_heads].reshape(-1, 1, head_dim)), cut.scale).bounded(product.limit)
    by_lane = turned.reshape(lanes, heads + kv_heads, head_dim)
    q, k, v = (
        part.reshape(-1, 1, head_dim) for part in (by_lane[:, :heads], by_lane[:, heads:], rows[:, heads + kv_heads :])
    )
    root = math.sqrt(source.bounds["mean square"].high)
    limits = (SCORE_LIMIT * root, OWN_RAW_SCORE.limit)
    groups = [(key, limits[0]) for key in keys] + [(k, limits[1])]
    *cached, own = yield from parallel(*(open_(_scores(q, key, limit)) for key, limit in groups))
    root_bits = SCALED_BITS - cut.scale
    return RawScores(cat(cached, 2), truncate(own, _SCALE - 2 * root_bits + _COARSER), cat([k, v], 0))


def _scores(q: Masked, keys: Masked, limit: float) -> Additive:
    groups, t, d = keys.shape
    grouped = q.reshape(groups, q.shape[0] // groups, d)
    return matmul(grouped, keys.transpose(1, 2), limit).reshape(q.shape[0], 1, t)
