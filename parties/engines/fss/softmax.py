"""Softmax without a maximum: a first, coarse pass of exponentials says how far to shift, a second one is exact.

The shift need not be the largest score; it must only keep the exponentials within fixed point. So the coarse pass takes
exp(x) rounded to a whole exponent, at three scales that together cover all scores, sums each over the row, and
compares the sums with powers of sixteen: within 2.5 of log sum exp(x), after four rounds and with 33 comparisons a row,
where a tournament needs one comparison a score and two rounds a level. Our own construction.
"""

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from parties.engines.fss import ring
from parties.engines.fss.bounds import PEAK, SCORE, SCORE_LIMIT, WEIGHT_LIMIT
from parties.engines.fss.compare import negative
from parties.engines.fss.gates import arithmetic, open_, truncate, xor_bits
from parties.engines.fss.octaves import HIGHEST, Octaves
from parties.engines.fss.products import product
from parties.engines.fss.tables import Tables, digit, look_up
from parties.engines.fss.values import Additive, Masked
from parties.program import Program

WEIGHT_SCALE = 18
_STEP_BITS = 4
_STEPS = 11  # powers of sixteen that one coarse table tells apart
_SPAN = _STEPS * _STEP_BITS * math.log(2)
_FLOORS = tuple(PEAK.low + i * _SPAN for i in range(3))
_COARSE_BITS = 6
_SHIFT = -0.3  # rows then sum to between 0.03 and 3.7, places one off included
MASKED_SCORE = -60.0
_CELL_BITS = 4
_LOWEST = -248  # of score - shift, which is at most 4: a score is at least -200, a shift at most 47
_HIGH_SCALE, _LOW_SCALE, _REST_SCALE = 18, 9, 9


def _window(width: int, low: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    """What the places of a table of 2^width cells stand for: the number from `low` on that is equal to each modulo."""
    places = np.arange(1 << width)
    return (places - low) % places.size + low


@cache
def _coarse() -> Tables:
    """exp(i - floor) * 2^6 up to the span, for cells of width one over [-200, 56) and each floor."""
    grown = [np.exp(np.minimum(_window(8, round(SCORE.low)) - floor, _SPAN)) * 2.0**_COARSE_BITS for floor in _FLOORS]
    return Tables(np.rint(np.stack(grown)).astype(np.int64)[:, None])


@cache
def _fine(width: int, low: int, cell: float, scale: int) -> Tables:
    """Exp over 2^width cells of which `low` is the lowest, no larger than exp(4)."""
    grown = np.exp(np.minimum(_window(width, low) * cell, 4.0)) * 2.0**scale
    return Tables(np.rint(grown).astype(np.int64)[None, None])


@cache
def _reciprocal() -> Octaves:
    """1 / x for x from 2^-5 to 2^5."""
    return Octaves(lambda x: 1 / x, WEIGHT_SCALE + 6, WEIGHT_SCALE + 16, WEIGHT_SCALE + 11, 28, 64.0)


def hidden_scores(scores: Masked, mask: Tensor) -> Masked:
    """Scores with those that do not count (mask False, public) at a value whose exponential is next to nothing."""
    seen = mask.expand(scores.shape)
    return scores.times(seen.long()).plus((~seen).double() * MASKED_SCORE).bounded(SCORE_LIMIT)


def _shift(scores: Masked) -> Program[Masked]:
    """A number for each row within about 2.5 of log sum exp, [..., 1], 16 fraction bits. 4 rounds."""
    source = scores.source
    found = look_up(source, scores.public, scores.mask, scores.scale, _coarse())
    opened = yield from open_(found.signed)
    shape, sign = found.sign
    terms = product([opened], (torch.Size((1, *shape)), lambda: sign().unsqueeze(0)), limit=2.0**HIGHEST)
    sums = yield from open_(terms.sum(-1).bounded(2.0**HIGHEST))  # [3, ...]
    edges = 2.0 ** (_COARSE_BITS + _STEP_BITS * torch.arange(_STEPS, dtype=torch.float64))
    spread = sums.reshape(*sums.shape, 1).expand(*sums.shape, _STEPS)
    below = yield from negative(spread.plus(-edges).bounded(2.0**HIGHEST))
    bits = arithmetic(source, (yield from xor_bits(source, below)))
    count = bits.sum(-1).sum(0)
    step = round(_STEP_BITS * math.log(2) * ring.SCALE)
    steps = Additive(source, count.share * -step, ring.FRACTION_BITS, 128.0)
    passed = yield from open_(steps.reshape(*steps.shape, 1))
    return passed.plus(PEAK.low + _SPAN * len(_FLOORS) + _SHIFT).bounded(128.0)


def exponentials(scores: Masked, mask: Tensor | None = None) -> Program[Masked]:
    """exp(score - shift) for a shift of each row, 18 fraction bits: rows sum to between 0.03 and 3.7.

    Range: `bounds.SCORE` and `bounds.PEAK`, rows of at most 4,096. Error: relative 2^-7 and
    absolute 2^-15. 6 rounds and those of a sign; 48 online and 184 offline bytes, to the server, a score; 32 + 33/8
    online bytes, 264 offline bytes, to the server, and 33 signs of 62 bits a row.

    Args:
        scores: [..., n].
        mask: public, broadcasts, True where a score counts.
    """
    scores = scores.bounded(SCORE_LIMIT)
    if mask is not None:
        scores = hidden_scores(scores, mask)
    source, start = scores.source, scores.scale
    x = scores - (yield from _shift(scores)).upscaled(scores.scale).expand(*scores.shape)
    high = look_up(source, x.public, x.mask, start, _fine(8, _LOWEST, 1.0, _HIGH_SCALE))
    rest = [ring.low_bits(part, 0, start) for part in (x.public, x.mask)]
    low_start = scores.scale - _CELL_BITS
    low = look_up(source, rest[0], rest[1], low_start, _fine(6, -32, 2.0**-_CELL_BITS, _LOW_SCALE))
    low_start_bits = scores.scale - _REST_SCALE
    end = digit(x, low_start_bits, low_start - low_start_bits).plus(1.0)
    both = yield from open_(_stack(high.signed, low.signed))
    sign = (torch.Size(x.shape), lambda: high.sign[1]() * low.sign[1]())
    grown = product([both[0], both[1], end], sign).rescaled(_HIGH_SCALE + _LOW_SCALE + _REST_SCALE)
    weights = truncate((yield from open_(grown.bounded(WEIGHT_LIMIT))), WEIGHT_SCALE)
    return weights if mask is None else weights.times(mask.expand(weights.shape).long()).bounded(WEIGHT_LIMIT)


def _stack(first: Additive, second: Additive) -> Additive:
    return Additive(first.source, torch.cat([first.share, second.share]), 0, max(first.limit, second.limit))


def reciprocal(total: Masked) -> Program[Masked]:
    """1 / total for totals of `exponentials`, from 2^-5 to 2^5, 18 fraction bits. 2 rounds. Error: relative 2^-13.

    Costs what `Octaves.apply` does with 5 windows, and 8 online and 8 offline bytes, to the server.
    """
    opened = yield from open_((yield from _reciprocal().apply(total.upscaled(WEIGHT_SCALE + 11))))
    return truncate(opened, WEIGHT_SCALE)
