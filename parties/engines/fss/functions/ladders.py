"""The public parameters of the softmax, which follow from the length of its rows."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from parties.engines.fss.bounds import PEAK
from parties.engines.fss.functions.windowed import HIGHEST
from parties.engines.fss.randomness.cell_dpf import SPARE_BITS
from parties.engines.limits import LONGEST_ROW

_HIGHEST_SHIFTED = 1.3  # log of the largest sum of a row after its shift, but for the coarse tables' rounding
COUNTED_CELL = 2  # width of a cell whose scores are counted
LONGEST_COUNTED = 1 << 14
"""Most scores of a row whose coarse sums fit the counts of `cell_dpf`, with two powers at each scale."""


@dataclass(frozen=True)
class Ladder:
    """The public parameters of the softmax of rows of up to `longest` scores.

    With c coarse bits a score adds at most 2^(c + step_bits (steps - 1)) to the sum of a scale, the highest power that
    the sum is compared with, and its rounding at most 1/2. So sums stay below 2^sum_bits, and the rounding of a whole
    row is at most longest / 2^(c + 1) of the lowest power: 1/4, 1, 1/64, 1 and 1 for the five ladders. It widens the
    range of the rows' sums as much, and leaves each exponential below 4. Long rows therefore have more scales. They
    also have smaller steps and finer factors, so that many small exponentials are not rounded to a few multiples of the
    smallest.

    Attributes:
        longest: Largest number of scores in a row.
        floors: Number of scales.
        steps: Number of powers that the sum at one scale is compared with.
        step_bits: Log2 of the ratio of two neighbouring powers.
        coarse_bits: Fraction bits of the coarse tables.
        high_scale, low_scale, rest_scale: Fraction bits of the three factors of an exponential; they sum to 36.
        cell: Width of the cells of the coarse tables.
        sum_bits: Bits of a coarse sum.
    """

    longest: int
    floors: int
    steps: int
    step_bits: int
    coarse_bits: int
    high_scale: int
    low_scale: int
    rest_scale: int
    cell: int = 1
    sum_bits: int = HIGHEST

    def __post_init__(self) -> None:
        """Checks the parameters.

        Raises:
            ValueError: Sums do not fit, rounding exceeds the lowest power, or the scales do not cover all peaks.
        """
        top = self.coarse_bits + self.step_bits * (self.steps - 1)
        if self.longest << top >= 1 << self.sum_bits or self.longest > 2 << self.coarse_bits:
            raise ValueError(f"rows of {self.longest}: {self.coarse_bits} coarse bits are too many or too few")
        if self.lowest_shift + self.floors * self.span < PEAK.high - 1:
            raise ValueError(f"rows of {self.longest}: {self.floors} scales end below {PEAK.high}")

    @property
    def span(self) -> float:
        """Distance between two scales, in units of the score."""
        return self.steps * self.step_bits * math.log(2)

    @property
    def lowest_shift(self) -> float:
        """The shift of a row whose sum is below all powers.

        Sums of a coarse table are off by a factor of at most exp(cell), the powers by a step: rows then sum to between
        0.03 and 3.7, but for rounding.
        """
        return PEAK.low + self.cell - _HIGHEST_SHIFTED

    @property
    def edges(self) -> Tensor:
        """The powers, as integers of a coarse sum, float64."""
        return 2.0 ** (self.coarse_bits + self.step_bits * torch.arange(self.steps, dtype=torch.float64))

    def counted(self, n: int) -> "Ladder":
        """Returns the ladder for coarse sums of counts, for rows of n scores: wider cells, single bits as steps.

        Raises:
            ValueError: Rows are longer than `LONGEST_COUNTED`.
        """
        if n > LONGEST_COUNTED:
            raise ValueError(f"rows of {n} scores to be counted; at most {LONGEST_COUNTED}")
        row_bits, sum_bits = (n - 1).bit_length(), 63 - SPARE_BITS
        coarse_bits = row_bits + 1 if row_bits <= 10 else row_bits - 1  # rounding at most 1/4 of the lowest power, or 1
        steps = sum_bits - row_bits - coarse_bits
        first = replace(self, longest=1 << row_bits, floors=1000, steps=steps, step_bits=1, coarse_bits=coarse_bits,
                        cell=COUNTED_CELL, sum_bits=sum_bits)  # fmt: skip
        return replace(first, floors=math.ceil((PEAK.high - 1 - first.lowest_shift) / first.span))


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
