"""Public sizes of a top-k by pivots, so large that uniformly random rankings almost never exceed them.

In a uniformly random ranking the ranks of a sample are drawn without replacement. Therefore the number of values that
share the k-th value's gap between two pivots has a known distribution, and so have the comparisons that rank these
values, summed over the rows of a call. All parties must compute the same sizes on any machine, so floats are combined
here by additions, multiplications and divisions in a fixed order alone, which IEEE 754 defines to the last bit.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

ROW_MISS_BITS = 30  # a call of h rows misses with a probability below h 2^-30
_STEPS = 24  # bases of the Chernoff bound that are tried: 1 + 2^-j


@dataclass(frozen=True)
class SampleSizes:
    """The public sizes of a top-k of n values by pivots, in each of several rows.

    Attributes:
        n: Number of values in a row.
        count: k, the number of values that are selected in a row.
        rows: Number of rows.
        sample: Size of a row's sample, the first values of the shuffle.
        pivots: Ranks of the pivots in the sample, ascending, counted from 0.
        pairs: Number of pairs that are compared at the end, of all rows together.
    """

    n: int
    count: int
    rows: int
    sample: int
    pivots: tuple[int, ...]
    pairs: int

    @property
    def comparisons(self) -> int:
        """Total number of comparisons, of all rows together."""
        row = math.comb(self.sample, 2) + len(self.pivots) * (self.n - self.sample)
        return self.rows * row + self.pairs


@lru_cache(maxsize=1024)
def sample_sizes(n: int, count: int, rows: int = 1) -> SampleSizes:
    """Returns sizes for the `count` highest of n in each of `rows` rows, 0 < count < n, n of 16 or more.

    The sample has about n^(2/3) values, as in Floyd and Rivest's selection, and about n^(1/3) of them are pivots,
    around the place of the k-th value. The factors are those with few comparisons for 24 to 1,023 values and 1 to 9
    rows.
    """
    sample = round(1.5 * n ** (2 / 3))
    wanted, spacing = round(n ** (1 / 3)) + 1, max(1, round(0.8 * math.sqrt(sample)))
    middle = count * (sample + 1) / (n + 1) - 1
    places = (round(middle + spacing * (i - (wanted - 1) / 2)) for i in range(wanted))
    pivots = tuple(sorted({min(sample - 1, max(0, place)) for place in places}))
    return SampleSizes(n, count, rows, sample, pivots, _pairs(gap_sizes(n, count, sample, pivots), rows))


def gap_sizes(n: int, count: int, sample: int, pivots: tuple[int, ...]) -> NDArray[np.float64]:
    """Returns the probability of each number of values that are ranked at the end in one row, [n + 1].

    Let pivots be the h-th and the l-th highest of the sample, and the a-th and the b-th highest of all, with no pivot
    between them. The b - a - 1 values between them are ranked if a < k and k + 1 < b. The probability of a and b is
    C(a-1, h-1) C(b-a-1, l-h-1) C(n-b, s-l) / C(n, s). For b = k + 2 it is computed in integers, then b by b.
    """
    sizes, total = np.zeros(n + 1), math.comb(n, sample)
    for h, low in pairwise((0, *(place + 1 for place in pivots), sample + 1)):
        above = np.arange(1, count) if h else np.zeros(1, dtype=np.int64)
        chance = np.zeros(len(above))
        for b in range(count + 2, n + 1) if low <= sample else [n + 1]:
            new = slice(None) if b in (count + 2, n + 1) else above == b - low + h
            chance[new] = [_ways(n, sample, h, low, a, b) / total for a in above[new].tolist()]
            sizes[b - above - 1] += chance
            gap = np.maximum(b - above - low + h + 1, 1)
            chance = chance * (b - above) / gap * max(0, n - b - sample + low) / max(1, n - b)
    return sizes


def _ways(n: int, sample: int, h: int, low: int, a: int, b: int) -> int:
    """Samples whose h-th highest is a and whose `low`-th is b; h = a = 0 and low = sample + 1, b = n + 1: no pivot."""
    before = math.comb(a - 1, h - 1) if h else 1
    after = math.comb(n - b, sample - low) if low <= sample else 1
    return before * math.comb(b - a - 1, low - h - 1) * after


def _pairs(sizes: NDArray[np.float64], rows: int) -> int:
    """Returns a number that the pairs of `rows` rows together exceed with a probability below rows 2^-30.

    Half of it is left to a row with more than `largest` values. For the others Chernoff's bound holds for any t above
    1: P[X >= m] <= E[t^X] / t^m, where X is the sum over independent rows.
    """
    chances = sizes.tolist()
    beyond, largest = 0.0, len(chances) - 1
    while largest and beyond + chances[largest] < 2.0 ** -(ROW_MISS_BITS + 1):
        beyond, largest = beyond + chances[largest], largest - 1
    found = [rows * math.comb(largest, 2)]
    nothing = max(0.0, 1 - float(np.add.accumulate(sizes)[-1]))
    for step in range(_STEPS):
        base, moment, power = 1 + 2.0**-step, nothing, 1.0
        for size in range(largest + 1):
            moment += chances[size] * power if chances[size] else 0.0
            power *= _power(base, size)
        bound = _power(moment, rows) * 2.0 ** (ROW_MISS_BITS + 1) / rows
        if math.isfinite(bound):
            found.append(_exceeding(base, bound))
    return min(found)


def _exceeding(base: float, bound: float) -> int:
    """Returns the least m with base^m > bound."""
    low, high = 0, 1
    while _power(base, high) <= bound:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _power(base, middle) <= bound else (low, middle)
    return high


def _power(base: float, exponent: int) -> float:
    """Returns base^exponent by squaring, the same on any machine, or infinity."""
    result = 1.0
    while exponent:
        if exponent % 2:
            result *= base
        base *= base
        exponent //= 2
    return result
