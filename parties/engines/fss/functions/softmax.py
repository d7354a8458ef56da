"""Softmax without a maximum: a coarse pass of exponentials determines the shift, a second pass is exact.

The shift need not be the largest score; it must only keep the exponentials within fixed point. That of `row_shift` is
within 3.5 of log sum exp(x), after two or three rounds and with some forty to 140 comparisons per row; a tournament
takes one comparison per score and two rounds per level.

The precision of the tables follows from the row's length: see `ladders`.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from parties.decoding.program import Program
from parties.engines.fss.arithmetic import ring
from parties.engines.fss.arithmetic.gates import open_, truncate
from parties.engines.fss.arithmetic.multiplication import multiply
from parties.engines.fss.arithmetic.values import Additive, Masked
from parties.engines.fss.bounds import SCORE_LIMIT, TOTAL_LIMIT, WEIGHT_LIMIT
from parties.engines.fss.functions.first_order import Expansion, FirstOrder
from parties.engines.fss.functions.ladders import ladder_of
from parties.engines.fss.functions.row_shift import row_shift
from parties.engines.fss.functions.tables import Tables, digit, look_up, window
from parties.engines.fss.randomness.constants import Known
from parties.engines.limits import FEW_ROWS

WEIGHT_SCALE = 18
MASKED_SCORE = -60.0
_CELL_BITS = 4
_SUM_WIDTH, _SUM_CELL_BITS = 14, 11  # cells of 2^-11 up to 8
_LOWEST = -251  # the lowest cell of score - shift: scores from -200, shifts to 49.5, indices one off


@cache
def _fine(width: int, low: int, cell: float, scale: int) -> Tables:
    """Tabulates exp over 2^width cells from cell `low` on, capped at exp(4)."""
    exps = np.exp(np.minimum(window(1 << width, low) * cell, 4.0)) * 2.0**scale
    return Tables(np.rint(exps).astype(np.int64)[None, None])


@cache
def _reciprocal(scale: int) -> FirstOrder:
    """Tabulates 1 / x for x below 8, in cells of 2^-11; the first ones, below 2^-6, as at 2^-6."""
    x = np.maximum(np.arange(1 << _SUM_WIDTH) * 2.0**-_SUM_CELL_BITS, 2.0**-6)
    rows = np.stack([1 / x * 2.0**scale, -1 / x**2 * 2.0 ** (scale - WEIGHT_SCALE)])
    return FirstOrder(Tables(np.rint(rows).astype(np.int64)[:, None]), _SUM_CELL_BITS, WEIGHT_SCALE, scale)


def seen_by(mask: Tensor | Known) -> Known:
    """Returns a public mask as 0 and 1, scale 0."""
    return mask if isinstance(mask, Known) else Known(mask.long(), 0, 1.0)


def hidden_scores(scores: Masked, seen: Known) -> Masked:
    """Replaces scores where the public mask is 0 by a value whose exponential is negligible."""
    return scores.shown(seen, MASKED_SCORE).bounded(SCORE_LIMIT)


def exponentials(scores: Masked, mask: Tensor | Known | None = None) -> Program[Masked]:
    """Computes exp(score - shift) with one shift per row, 18 fraction bits: rows sum to between 0.03 and 3.7.

    Range: `bounds.SCORE` and `bounds.PEAK`, rows of at most 131,072. Error: relative 2^-7 and absolute 2^-15; for rows
    of more than 1,024 relative 0.01 and absolute 2^-17, of more than 32,768 relative 0.02. With the worst-case rounding
    described in `Ladder` rows sum to between 0.015 and 7.4. All this holds for both forms of `row_shift`.

    5 rounds and those of `count_below` (none with `dcf`). With f scales and s steps 24 + 8 f online and 160 offline
    bytes, to the server, per score; per row 8 f + 8 online and 8 f offline bytes, to the server, and what `count_below`
    takes for f numbers of 62 bits and s edges. f x s is 3 x 11 up to 2,048 scores, 4 x 9 up to 4,096, 4 x 17 up to
    32,768 and 5 x 15 beyond.

    With `softmax: dpf`, up to `FEW_ROWS` queries and 16,384 scores, a round less: 24 online bytes per score, 216
    offline bytes to the server and 96 to the client; per row the same for f numbers of 29 bits, without the 8 f offline
    bytes. f x s is 10 x 14 for 128 scores, 17 x 8 for 1,024 and 2,048, 22 x 6 for 4,096 and 33 x 4 for 8,192.

    Args:
        scores: [..., queries, n].
        mask: Public, broadcastable, True or 1 where a score counts; None if all do.

    Raises:
        TruncationFailure: See `truncate`.
        ValueError: Rows are longer than the last ladder allows.
    """
    ladder = ladder_of(scores.shape[-1])
    scores = scores.bounded(SCORE_LIMIT)
    seen = None if mask is None else seen_by(mask)
    if seen is not None:
        scores = hidden_scores(scores, seen)
    source = scores.source
    x = scores - (yield from row_shift(scores)).expand(*scores.shape)
    start = x.scale
    high = look_up(source, x.public, x.mask, start, _fine(8, _LOWEST, 1.0, ladder.high_scale))
    rest = [ring.low_bits(part, 0, start) for part in (x.public, x.mask)]
    low_start = start - _CELL_BITS
    low = look_up(source, rest[0], rest[1], low_start, _fine(6, -32, 2.0**-_CELL_BITS, ladder.low_scale))
    low_start_bits = start - ladder.rest_scale
    end = digit(x, low_start_bits, low_start - low_start_bits).plus(1.0)
    both = yield from open_(_stack(high.signed, low.signed))
    sign = (torch.Size(x.shape), lambda: high.sign[1]() * low.sign[1]())
    scale = ladder.high_scale + ladder.low_scale + ladder.rest_scale
    exps = multiply([both[0], both[1], end], sign).rescaled(scale)
    weights = truncate((yield from open_(exps.bounded(WEIGHT_LIMIT))), WEIGHT_SCALE)
    return weights if seen is None else (weights * seen).bounded(WEIGHT_LIMIT)


def _stack(first: Additive, second: Additive) -> Additive:
    return Additive(first.source, torch.cat([first.share, second.share]), 0, max(first.limit, second.limit))


def inverse(total: Masked, scale: int = 21) -> Program[Expansion]:
    """Looks up 1 / total for sums of `exponentials`, [...], as a factor of `divide`. 1 round.

    Range: from 2^-6 to `bounds.TOTAL_LIMIT`. Error: relative (2^-11 / total)^2 + 2^-13, which is below 2^-11 for sums
    above 0.03. A sum costs 16 online bytes each way and 2,096 offline bytes, to the server.
    """
    return _reciprocal(scale).look_up(total.reshape(*total.shape, 1))


def divide(x: Masked, inverse: Expansion | Masked, limit: float) -> Program[Masked]:
    """Multiplies x [..., d] by an `inverse` or a `reciprocal` [...], 16 fraction bits. 1 round.

    8 online bytes each way and 48 offline bytes, to the server, per element; with a `reciprocal` 16 offline bytes, and
    2 to 3 fraction bits less to be truncated.

    Args:
        x: Numerators.
        inverse: What `inverse` found, or `reciprocal` computed.
        limit: Bound of the quotients.

    Raises:
        TruncationFailure: See `truncate`.
    """
    if isinstance(inverse, Expansion):
        quotient = inverse.times(x, limit=limit)
    else:
        quotient = multiply([x, inverse.reshape(*inverse.shape, 1)], limit=limit)
    return truncate((yield from open_(quotient)))


def reciprocal(total: Masked) -> Program[Masked]:
    """Computes 1 / total, 18 fraction bits, for so many numerators that bytes count more than a round. 2 rounds.

    Range and error: see `inverse`. 8 online and 8 offline bytes, to the server, more than that.
    """
    found = yield from inverse(total, scale=28)
    opened = yield from open_(found.times(limit=64.0))
    return truncate(opened, WEIGHT_SCALE).reshape(*total.shape)


def inverse_sums(weights: Masked) -> Program[Expansion | Masked]:
    """Inverse sums of rows, [..., n, t]: a round less for few queries, fewer bytes and retries for a prompt's."""
    total = weights.sum(-1).bounded(TOTAL_LIMIT)
    if weights.shape[-2] <= FEW_ROWS:
        return (yield from inverse(total))
    return (yield from reciprocal(total))
