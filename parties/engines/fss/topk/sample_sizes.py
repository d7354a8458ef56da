"""Public sizes of a top-k by pivots, so large that a uniformly random ranking almost never exceeds them.

In a uniformly random ranking of n values the ranks of a sample are drawn without replacement, so each way to miss is a
tail of the hypergeometric distribution. Tails are computed in integers, since all parties must compute the same sizes
on any machine.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

MISS_BITS = 32  # each of three ways to miss has a probability of at most 2^-32
ROW_MISS_BITS = MISS_BITS - 2  # so a row misses with a probability below 2^-30
_SHARES = range(2, 33)  # samples of n / 2 to n / 32 are tried


@dataclass(frozen=True)
class SampleSizes:
    """The public sizes of a top-k of n values by pivots.

    Attributes:
        n: Number of values.
        count: k, the number of values that are selected.
        sample: Size of the sample, the first values of the shuffle.
        high: The upper pivot is the high-th highest of the sample; 0 if there is none.
        low: The lower pivot is the low-th highest of the sample; sample + 1 if there is none.
        between: Number of values that are ranked at the end; at most so many may lie between the pivots.
    """

    n: int
    count: int
    sample: int
    high: int
    low: int
    between: int

    @property
    def pivots(self) -> list[int]:
        """Ranks of the pivots in the sample, counted from 0."""
        return [place - 1 for place in (self.high, self.low) if 0 < place <= self.sample]

    @property
    def comparisons(self) -> int:
        """Total number of comparisons."""
        return math.comb(self.sample, 2) + len(self.pivots) * (self.n - self.sample) + math.comb(self.between, 2)


@lru_cache(maxsize=256)
def sample_sizes(n: int, count: int) -> SampleSizes:
    """Returns the sizes with the fewest comparisons for the `count` highest of n, 0 < count < n, n of 32 or more."""
    tried = {max(2, n // share) for share in _SHARES}
    return min((_sizes_for(n, count, sample) for sample in sorted(tried)), key=lambda sizes: sizes.comparisons)


def _sizes_for(n: int, count: int, sample: int) -> SampleSizes:
    """Returns the closest pivots that enclose the count-th value, and the number of values between them, for a sample.

    The high-th of the sample is not in the top `count` if fewer than `high` of the sample are; likewise from below.
    Gaps between neighbours of a sample are identically distributed, so `low - high` of them exceed `between` values if
    fewer than that many of the sample are among the first `between + 1`.
    """
    high = hypergeometric_quantile(n, count, sample)
    low = sample + 1 - hypergeometric_quantile(n, n - count, sample)
    if low - high > sample:
        return SampleSizes(n, count, sample, high, low, n)
    least, most = 0, n - 1
    while least < most:
        middle = (least + most) // 2
        if hypergeometric_quantile(n, middle + 1, sample) >= low - high:
            most = middle
        else:
            least = middle + 1
    return SampleSizes(n, count, sample, high, low, max(2, least))


def hypergeometric_quantile(n: int, marked: int, sample: int) -> int:
    """Returns the largest j such that P[H < j] <= 2^-MISS_BITS for the number H of `marked` values in the sample.

    Args:
        n: Size of the population.
        marked: Marked values in the population.
        sample: Size of the sample, drawn without replacement.
    """
    total, below = math.comb(n, sample), 0
    i = max(0, sample - (n - marked))
    term = math.comb(marked, i) * math.comb(n - marked, sample - i)
    while True:
        below += term
        if below << MISS_BITS > total:
            return i
        i += 1
        term = term * (marked - i + 1) * (sample - i + 1) // (i * (n - marked - sample + i))
