"""Softmax without a maximum: a first, coarse pass of exponentials says how far to shift, a second one is exact.

The shift need not be the largest score; it must only keep the exponentials within fixed point. So the coarse pass takes
exp(x) rounded to a whole exponent, at a few scales that together cover all scores, sums each over the row, and compares
the sums with powers of two: within 2.5 of log sum exp(x), after four rounds and with some forty comparisons a row,
where a tournament needs one comparison a score and two rounds a level. Our own construction.

How many scales, how far apart the powers and how fine the tables follow from the row's length: see `Ladder`.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from parties.decoding.program import Program
from parties.engines.fss.arithmetic import ring
from parties.engines.fss.arithmetic.gates import arithmetic, open_, truncate, xor_bits
from parties.engines.fss.arithmetic.products import product
from parties.engines.fss.arithmetic.values import Additive, Masked
from parties.engines.fss.bounds import PEAK, SCORE, SCORE_LIMIT, WEIGHT_LIMIT
from parties.engines.fss.compare.signs import negative
from parties.engines.fss.functions.tables import Tables, digit, look_up
from parties.engines.fss.functions.windowed import HIGHEST, Octaves
from parties.engines.limits import LONGEST_ROW

WEIGHT_SCALE = 18
_SHIFT = -0.3  # rows then sum to between 0.03 and 3.7, places one off included, but for the coarse tables' rounding
MASKED_SCORE = -60.0
_CELL_BITS = 4
_LOWEST = -251  # cells of score - shift, which is at most 4: scores are from -200, shifts to 49.5, places one off


@dataclass(frozen=True)
class Ladder:
    """How rows of up to `longest` scores are taken. All sizes are public.

    With c coarse bits a score adds at most 2^(c + step_bits (steps - 1)) to the sum of a scale, the highest power that
    it is compared with, and its rounding at most 1/2. So sums stay below 2^62, and the rounding of a whole row is at
    most longest / 2^(c + 1) of the lowest power: 1/4, 1, 1/64 and 1. It widens what rows sum to as much, and leaves
    each single exponential below 4. That is why long rows have more scales. They also have smaller steps and finer
    factors: many small exponentials must not round to few multiples of the smallest one.

    Attributes:
        longest: scores of a row.
        floors: scales.
        steps: powers that the sum at one scale is compared with.
        step_bits: log2 of the ratio of two of them.
        coarse_bits: fraction bits of the coarse tables.
        high_scale, low_scale, rest_scale: fraction bits of the three factors of an exponential; together always 36.
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
        """Checks what the sizes have to fulfil.

        Raises:
            ValueError: sums do not fit, rounding outweighs the lowest power, or the scales do not cover all peaks.
        """
        top = self.coarse_bits + self.step_bits * (self.steps - 1)
        if self.longest << top >= 1 << HIGHEST or self.longest > 2 << self.coarse_bits:
            raise ValueError(f"rows of {self.longest}: {self.coarse_bits} coarse bits are too many or too few")
        if PEAK.low + self.floors * self.span + _SHIFT < PEAK.high - 1:
            raise ValueError(f"rows of {self.longest}: {self.floors} scales end below {PEAK.high}")

    @property
    def span(self) -> float:
        """Distance of two scales."""
        return self.steps * self.step_bits * math.log(2)

    @property
    def edges(self) -> Tensor:
        """The powers, as integers of a coarse sum."""
        return 2.0 ** (self.coarse_bits + self.step_bits * torch.arange(self.steps, dtype=torch.float64))


LADDERS = (
    Ladder(1 << 10, 3, 11, 4, coarse_bits=11, high_scale=18, low_scale=9, rest_scale=9),
    Ladder(1 << 11, 3, 11, 4, coarse_bits=10, high_scale=20, low_scale=8, rest_scale=8),
    Ladder(1 << 12, 4, 9, 4, coarse_bits=17, high_scale=20, low_scale=8, rest_scale=8),
    Ladder(LONGEST_ROW["fss"], 4, 17, 2, coarse_bits=14, high_scale=20, low_scale=8, rest_scale=8),
)


def ladder_of(n: int) -> Ladder:
    """The first ladder that takes rows of n scores.

    Raises:
        ValueError: no ladder does.
    """
    for ladder in LADDERS:
        if n <= ladder.longest:
            return ladder
    most = LADDERS[-1].longest
    raise ValueError(f"a row of {n:,} attention scores: fss takes at most {most:,} tokens; shorten the sequence")


def _window(width: int, low: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    """What the places of a table of 2^width cells stand for: the number from `low` on that is equal to each modulo."""
    places = np.arange(1 << width)
    return (places - low) % places.size + low


@cache
def _coarse(ladder: Ladder) -> Tables:
    """exp(i - floor), up to the highest power, for cells of width one over [-200, 56) and each scale's floor."""
    floors = [PEAK.low + i * ladder.span for i in range(ladder.floors)]
    grown = np.stack([np.exp(_window(8, round(SCORE.low)) - floor) * 2.0**ladder.coarse_bits for floor in floors])
    return Tables(np.rint(np.minimum(grown, float(ladder.edges[-1]))).astype(np.int64)[:, None])


@cache
def _fine(width: int, low: int, cell: float, scale: int) -> Tables:
    """Exp over 2^width cells of which `low` is the lowest, no larger than exp(4)."""
    grown = np.exp(np.minimum(_window(width, low) * cell, 4.0)) * 2.0**scale
    return Tables(np.rint(grown).astype(np.int64)[None, None])


@cache
def _reciprocal() -> Octaves:
    """1 / x for x from 2^-6 to 2^4."""
    return Octaves(lambda x: 1 / x, WEIGHT_SCALE + 5, WEIGHT_SCALE + 15, WEIGHT_SCALE + 11, 28, 64.0)


def hidden_scores(scores: Masked, mask: Tensor) -> Masked:
    """Scores with those that do not count (mask False, public) at a value whose exponential is next to nothing."""
    seen = mask.expand(scores.shape)
    return scores.times(seen.long()).plus((~seen).double() * MASKED_SCORE).bounded(SCORE_LIMIT)


def _shift(scores: Masked, ladder: Ladder) -> Program[Masked]:
    """A number for each row within about 2.5 of log sum exp, [..., 1], 16 fraction bits. 4 rounds."""
    source, steps = scores.source, ladder.steps
    found = look_up(source, scores.public, scores.mask, scores.scale, _coarse(ladder))
    opened = yield from open_(found.signed)
    shape, sign = found.sign
    terms = product([opened], (torch.Size((1, *shape)), lambda: sign().unsqueeze(0)), limit=2.0**HIGHEST)
    sums = yield from open_(terms.sum(-1).bounded(2.0**HIGHEST))  # [floors, ...]
    spread = sums.reshape(*sums.shape, 1).expand(*sums.shape, steps)
    below = yield from negative(spread.plus(-ladder.edges).bounded(2.0**HIGHEST))
    bits = arithmetic(source, (yield from xor_bits(source, below)))
    count = bits.sum(-1).sum(0)
    step = round(ladder.step_bits * math.log(2) * ring.SCALE)
    down = Additive(source, count.share * -step, ring.FRACTION_BITS, 128.0)
    passed = yield from open_(down.reshape(*down.shape, 1))
    return passed.plus(PEAK.low + ladder.span * ladder.floors + _SHIFT).bounded(128.0)


def exponentials(scores: Masked, mask: Tensor | None = None) -> Program[Masked]:
    """exp(score - shift) for a shift of each row, 18 fraction bits: rows sum to between 0.03 and 3.7.

    Range: `bounds.SCORE` and `bounds.PEAK`, rows of at most 32,768. Error: relative 2^-7 and absolute 2^-15; for rows
    of more than 1,024 relative 0.01 and absolute 2^-17. In the worst case of the rounding that `Ladder` speaks of rows
    sum to between 0.015 and 7.4.

    6 rounds and those of a sign. With f scales and s steps 24 + 8 f online and 160 + 8 f offline bytes, to the server,
    per score; per row 8 f + 8 + f s / 8 online bytes, 8 f s offline bytes, to the server, and f s signs of 62 bits.
    f x s is 3 x 11 up to 2,048 scores, 4 x 9 up to 4,096 and 4 x 17 beyond.

    Args:
        scores: [..., n].
        mask: public, broadcasts, True where a score counts.

    Raises:
        ValueError: rows are longer than the last ladder takes.
    """
    ladder = ladder_of(scores.shape[-1])
    scores = scores.bounded(SCORE_LIMIT)
    if mask is not None:
        scores = hidden_scores(scores, mask)
    source, start = scores.source, scores.scale
    x = scores - (yield from _shift(scores, ladder)).upscaled(scores.scale).expand(*scores.shape)
    high = look_up(source, x.public, x.mask, start, _fine(8, _LOWEST, 1.0, ladder.high_scale))
    rest = [ring.low_bits(part, 0, start) for part in (x.public, x.mask)]
    low_start = scores.scale - _CELL_BITS
    low = look_up(source, rest[0], rest[1], low_start, _fine(6, -32, 2.0**-_CELL_BITS, ladder.low_scale))
    low_start_bits = scores.scale - ladder.rest_scale
    end = digit(x, low_start_bits, low_start - low_start_bits).plus(1.0)
    both = yield from open_(_stack(high.signed, low.signed))
    sign = (torch.Size(x.shape), lambda: high.sign[1]() * low.sign[1]())
    scale = ladder.high_scale + ladder.low_scale + ladder.rest_scale
    grown = product([both[0], both[1], end], sign).rescaled(scale)
    weights = truncate((yield from open_(grown.bounded(WEIGHT_LIMIT))), WEIGHT_SCALE)
    return weights if mask is None else weights.times(mask.expand(weights.shape).long()).bounded(WEIGHT_LIMIT)


def _stack(first: Additive, second: Additive) -> Additive:
    return Additive(first.source, torch.cat([first.share, second.share]), 0, max(first.limit, second.limit))


def reciprocal(total: Masked) -> Program[Masked]:
    """1 / total for totals of `exponentials`, from 2^-6 to 2^4, 18 fraction bits. 2 rounds. Error: relative 2^-13.

    Costs what `Octaves.apply` does with 5 windows, and 8 online and 8 offline bytes, to the server.
    """
    opened = yield from open_((yield from _reciprocal().apply(total.upscaled(WEIGHT_SCALE + 11))))
    return truncate(opened, WEIGHT_SCALE)
