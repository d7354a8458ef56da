"""Softmax without a maximum: a coarse pass of exponentials determines the shift, a second pass is exact.

The shift need not be the largest score; it must only keep the exponentials within fixed point. The coarse pass looks up
exp(x) rounded to an integer exponent, at a few scales that together cover all scores, sums each scale over the row and
compares the sums with powers of two, all powers with one key for each sum. The shift is then within 2.5 of log sum
exp(x), after three rounds and with some forty comparisons per row; a tournament takes one comparison per score and two
rounds per level. Our own construction.

The number of scales, the distance of the powers and the precision of the tables follow from the row's length: see
`Ladder`.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from parties.decoding.program import Program
from parties.engines.fss.arithmetic import ring
from parties.engines.fss.arithmetic.gates import open_, truncate
from parties.engines.fss.arithmetic.multiplication import multiply, signed_sum
from parties.engines.fss.arithmetic.values import Additive, Masked
from parties.engines.fss.bounds import PEAK, SCORE, SCORE_LIMIT, WEIGHT_LIMIT
from parties.engines.fss.compare.signs import count_below
from parties.engines.fss.functions.first_order import Expansion, FirstOrder
from parties.engines.fss.functions.tables import Tables, digit, look_up
from parties.engines.fss.functions.windowed import HIGHEST
from parties.engines.fss.randomness.constants import Known
from parties.engines.limits import LONGEST_ROW

WEIGHT_SCALE = 18
_SHIFT = -0.3  # rows then sum to between 0.03 and 3.7, places one off included, but for the coarse tables' rounding
MASKED_SCORE = -60.0
_CELL_BITS = 4
_SUM_WIDTH, _SUM_CELL_BITS = 14, 11  # cells of 2^-11 up to 8
_LOWEST = -251  # the lowest cell of score - shift: scores from -200, shifts to 49.5, indices one off


@dataclass(frozen=True)
class Ladder:
    """The public parameters of the softmax of rows of up to `longest` scores.

    With c coarse bits a score adds at most 2^(c + step_bits (steps - 1)) to the sum of a scale, the highest power that
    the sum is compared with, and its rounding at most 1/2. So sums stay below 2^62, and the rounding of a whole row is
    at most longest / 2^(c + 1) of the lowest power: 1/4, 1, 1/64, 1 and 1 for the five ladders. It widens the range of
    the rows' sums as much, and leaves each exponential below 4. Long rows therefore have more scales. They also have
    smaller steps and finer factors, so that many small exponentials are not rounded to a few multiples of the smallest.

    Attributes:
        longest: Largest number of scores in a row.
        floors: Number of scales.
        steps: Number of powers that the sum at one scale is compared with.
        step_bits: Log2 of the ratio of two neighbouring powers.
        coarse_bits: Fraction bits of the coarse tables.
        high_scale, low_scale, rest_scale: Fraction bits of the three factors of an exponential; they sum to 36.
    """

    longest: int
    floors: int
    steps: int
    step_bits: int
    coarse_bits: int
    high_scale: int
    low_scale: int
    rest_scale: int

    def __post_init__(self) -> None:
        """Checks the parameters.

        Raises:
            ValueError: Sums do not fit, rounding exceeds the lowest power, or the scales do not cover all peaks.
        """
        top = self.coarse_bits + self.step_bits * (self.steps - 1)
        if self.longest << top >= 1 << HIGHEST or self.longest > 2 << self.coarse_bits:
            raise ValueError(f"rows of {self.longest}: {self.coarse_bits} coarse bits are too many or too few")
        if PEAK.low + self.floors * self.span + _SHIFT < PEAK.high - 1:
            raise ValueError(f"rows of {self.longest}: {self.floors} scales end below {PEAK.high}")

    @property
    def span(self) -> float:
        """Distance between two scales, in units of the score."""
        return self.steps * self.step_bits * math.log(2)

    @property
    def edges(self) -> Tensor:
        """The powers, as integers of a coarse sum, float64."""
        return 2.0 ** (self.coarse_bits + self.step_bits * torch.arange(self.steps, dtype=torch.float64))


LADDERS = (
    Ladder(1 << 10, 3, 11, 4, coarse_bits=11, high_scale=18, low_scale=9, rest_scale=9),
    Ladder(1 << 11, 3, 11, 4, coarse_bits=10, high_scale=20, low_scale=8, rest_scale=8),
    Ladder(1 << 12, 4, 9, 4, coarse_bits=17, high_scale=20, low_scale=8, rest_scale=8),
    Ladder(1 << 15, 4, 17, 2, coarse_bits=14, high_scale=20, low_scale=8, rest_scale=8),
    Ladder(LONGEST_ROW["fss"], 5, 15, 2, coarse_bits=16, high_scale=22, low_scale=7, rest_scale=7),
)


def ladder_of(n: int) -> Ladder:
    """Returns the first ladder for rows of n scores.

    Raises:
        ValueError: Rows are longer than the last ladder allows.
    """
    for ladder in LADDERS:
        if n <= ladder.longest:
            return ladder
    most = LADDERS[-1].longest
    raise ValueError(f"a row of {n:,} attention scores: fss takes at most {most:,} tokens; shorten the sequence")


def _window(width: int, low: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    """Returns the integers, from `low` on, that the indices of a table of 2^width cells stand for modulo its length."""
    places = np.arange(1 << width)
    return (places - low) % places.size + low


@cache
def _coarse(ladder: Ladder) -> Tables:
    """Tabulates exp(i - floor), capped at the highest power, for unit cells over [-200, 56) and each scale's floor."""
    floors = [PEAK.low + i * ladder.span for i in range(ladder.floors)]
    exps = np.stack([np.exp(_window(8, round(SCORE.low)) - floor) * 2.0**ladder.coarse_bits for floor in floors])
    return Tables(np.rint(np.minimum(exps, float(ladder.edges[-1]))).astype(np.int64)[:, None])


@cache
def _fine(width: int, low: int, cell: float, scale: int) -> Tables:
    """Tabulates exp over 2^width cells from cell `low` on, capped at exp(4)."""
    exps = np.exp(np.minimum(_window(width, low) * cell, 4.0)) * 2.0**scale
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


def _shift(scores: Masked, ladder: Ladder) -> Program[Masked]:
    """Computes a number per row within about 2.5 of log sum exp, [..., 1]. 3 rounds and those of `count_below`."""
    source = scores.source
    found = look_up(source, scores.public, scores.mask, scores.scale, _coarse(ladder))
    opened = yield from open_(found.signed)
    sums = yield from open_(signed_sum(opened, found.sign, 2.0**HIGHEST))  # [floors, ...]
    count = (yield from count_below(sums, ladder.edges.long())).sum(0)
    step = round(ladder.step_bits * math.log(2) * ring.SCALE)
    down = Additive(source, count.share * -step, count.scale + ring.FRACTION_BITS, 128.0)
    opened_down = yield from open_(down.reshape(*down.shape, 1))
    return opened_down.plus(PEAK.low + ladder.span * ladder.floors + _SHIFT).bounded(128.0)


def exponentials(scores: Masked, mask: Tensor | Known | None = None) -> Program[Masked]:
    """Computes exp(score - shift) with one shift per row, 18 fraction bits: rows sum to between 0.03 and 3.7.

    Range: `bounds.SCORE` and `bounds.PEAK`, rows of at most 131,072. Error: relative 2^-7 and absolute 2^-15; for rows
    of more than 1,024 relative 0.01 and absolute 2^-17, of more than 32,768 relative 0.02. With the worst-case rounding
    described in `Ladder` rows sum to between 0.015 and 7.4.

    5 rounds and those of `count_below` (none with `dcf`). With f scales and s steps 24 + 8 f online and 160 offline
    bytes, to the server, per score; per row 8 f + 8 online and 8 f offline bytes, to the server, and what `count_below`
    takes for f numbers of 62 bits and s edges. f x s is 3 x 11 up to 2,048 scores, 4 x 9 up to 4,096, 4 x 17 up to
    32,768 and 5 x 15 beyond.

    Args:
        scores: [..., n].
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
    x = scores - (yield from _shift(scores, ladder)).expand(*scores.shape)
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
