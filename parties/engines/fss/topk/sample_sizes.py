"""Sizes of a choice by pivots: public, and so large that a random ranking almost never exceeds them.

In a uniformly random ranking of n the places of a random sample are those of drawing without replacement, so each way
to miss is a tail of the hypergeometric distribution. Tails are computed in integers: all parties, on whatever machine,
must come to the same sizes.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

MISS_BITS = 32  # each of three ways to miss has probability 2^-32 at most
MISSED_BITS = MISS_BITS - 2  # so a row misses with less than 2^-30
_SHARES = range(2, 33)  # samples of n / 2 to n / 32 are tried


@dataclass(frozen=True)
class Caps:
    """How k of n are chosen by pivots.

    Attributes:
        n: values.
        count: k, how many are chosen.
        sample: the first so many are ranked.
        high: the upper pivot is the high-th highest of the sample; 0 without one.
        low: the lower pivot is the low-th highest of the sample; sample + 1 without one.
        between: so many values are ranked at last, which those between the pivots must not exceed.
    """

    n: int
    count: int
    sample: int
    high: int
    low: int
    between: int

    @property
    def pivots(self) -> list[int]:
        """The pivots' places in the ranked sample, counted from 0."""
        return [place - 1 for place in (self.high, self.low) if 0 < place <= self.sample]

    @property
    def comparisons(self) -> int:
        """Signs, all told."""
        return math.comb(self.sample, 2) + len(self.pivots) * (self.n - self.sample) + math.comb(self.between, 2)


@lru_cache(maxsize=256)
def caps(n: int, count: int) -> Caps:
    """The sizes with the fewest comparisons for the `count` highest of n, 0 < count < n, n of 32 or more."""
    tried = {max(2, n // share) for share in _SHARES}
    return min((_of_sample(n, count, sample) for sample in sorted(tried)), key=lambda sizes: sizes.comparisons)


def _of_sample(n: int, count: int, sample: int) -> Caps:
    """The closest pivots that still have the count-th between them, and the room that they need.

    The high-th of the sample is not among the best `count` if fewer than `high` of the sample are; likewise from below.
    Gaps between neighbours of a sample are all distributed alike, so a gap of `low - high` of them exceeds `between`
    if fewer than that many of the sample are among the first `between + 1`.
    """
    high = surely(n, count, sample)
    low = sample + 1 - surely(n, n - count, sample)
    if low - high > sample:
        return Caps(n, count, sample, high, low, n)
    least, most = 0, n - 1
    while least < most:
        middle = (least + most) // 2
        if surely(n, middle + 1, sample) >= low - high:
            most = middle
        else:
            least = middle + 1
    return Caps(n, count, sample, high, low, max(2, least))


def surely(n: int, marked: int, sample: int) -> int:
    """The largest j for which a sample of n has fewer than j `marked` with probability 2^-MISS_BITS at most."""
    total, below = math.comb(n, sample), 0
    i = max(0, sample - (n - marked))
    term = math.comb(marked, i) * math.comb(n - marked, sample - i)
    while True:
        below += term
        if below << MISS_BITS > total:
            return i
        i += 1
        term = term * (marked - i + 1) * (sample - i + 1) // (i * (n - marked - sample + i))
