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
        cached: Scores of cached keys, [heads, 1, t].
        own: The new token's own score, [heads, 1, 1].
        rows: The new token's key and value, [2 kv_heads, 1, head_dim].
    """

    cached: Masked
    own: Masked
    rows: Masked

    def scaled(self, root: Masked, place: Known, limit: float) -> Program[tuple[Masked, Masked]]:
        """Multiplies by the inverse root s, [1]: the key and the value, 16 fraction bits, and the scores, 50. 1 round.

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
        coarse, root = (truncate(root, b).reshape(1, 1, 1) for b in (bits - _COARSER, bits))
        others = Known(1 - place.integers, 0, 1.0)
        cached = multiply([self.cached, root], limit=SCORE_LIMIT) * others
        own = multiply([self.own, root, coarse], limit=SCORE_LIMIT).expand(*cached.shape) * place
        rows, scores = yield from parallel(
            open_(multiply([self.rows, root], limit=limit)), open_((cached + own).bounded(SCORE_LIMIT))
        )
        return truncate(rows), scores


def raw_scores(
    product: Masked, kv_heads: int, head_dim: int, turn: Callable[[Masked], Masked], keys: Sequence[Masked]
) -> Program[RawScores]:
    """Scores a row of queries, keys and values [1, n] before its norm. 1 round.

    With H query heads, t keys of G heads and head dimension d, 8 H (t + 1) online bytes each way; offline, to the
    server, as many, 8 (H + 2 G) d for the row, as much for its turned queries and keys if they have positions, and 8 H.

    Args:
        product: The row, within `NormInput.unscaled`, as it was opened.
        kv_heads: Key heads.
        head_dim: Their dimension.
        turn: Gives queries and keys, [heads + kv_heads, 1, head_dim], their positions: a rotation.
        keys: Cached keys, each [kv_heads, t, head_dim] or [heads, t, head_dim], 16 fraction bits.

    Raises:
        TruncationFailure: See `truncate`.
    """
    source, cut = product.source, truncate(product, product.scale - ring.FRACTION_BITS)
    row = cut.reshape(cut.shape[1] // head_dim, 1, head_dim)
    heads = row.shape[0] - 2 * kv_heads
    turned = truncate(turn(row[: heads + kv_heads]), cut.scale).bounded(product.limit)
    q, k = turned[:heads], turned[heads:]
    root = math.sqrt(source.bounds["mean square"].high)
    limits = (SCORE_LIMIT * root, OWN_RAW_SCORE.limit)
    groups = [(key, limits[0]) for key in keys] + [(k, limits[1])]
    *cached, own = yield from parallel(*(open_(_scores(q, key, limit)) for key, limit in groups))
    root_bits = SCALED_BITS - cut.scale
    return RawScores(
        cat(cached, 2), truncate(own, _SCALE - 2 * root_bits + _COARSER), cat([k, row[heads + kv_heads :]], 0)
    )


def _scores(q: Masked, keys: Masked, limit: float) -> Additive:
    groups, t, d = keys.shape
    grouped = q.reshape(groups, q.shape[0] // groups, d)
    return matmul(grouped, keys.transpose(1, 2), limit).reshape(q.shape[0], 1, t)
