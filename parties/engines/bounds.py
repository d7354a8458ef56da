"""Ranges of numbers: what an engine declares, and a watch that compares a plain run with them.

The `plain` engine computes over any range, a private engine does not. Each private engine has one table of its bounds;
the referee's plain run is watched against it, so that a model or a prompt whose numbers leave a range is refused, or
marked, by the name of the number.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from torch import Tensor


class Kind(StrEnum):
    """What happens beyond a bound.

    Attributes:
        CERTAIN: a comparison, a look-up or a series: the result is wrong for certain, and where a ranking of such
            numbers is opened it is no uniformly random one, so that it leaks.
        RARE: a truncation alone: the result is wrong, unseen, with a small probability that grows with the number.
    """

    CERTAIN = "certain"
    RARE = "rare"


@dataclass(frozen=True)
class Bound:
    """The range of one number.

    Attributes:
        number: which one, by its place in the decoder.
        low: the least value that is taken.
        high: the largest one.
        kind: what happens outside.
        fraction_bits: of a number that is truncated, before it is.
    """

    number: str
    low: float
    high: float
    kind: Kind
    fraction_bits: int = 0

    @property
    def limit(self) -> float:
        """The least power of two that no |x| within the range exceeds."""
        return float(2.0 ** math.ceil(math.log2(max(abs(self.low), abs(self.high)))))

    def chance(self, values: Tensor) -> float:
        """Probability that the truncation of any of `values` is wrong: the sum of (|x| - bound) / 2^64, in integers."""
        beyond = (values.double().abs() - self.high).clamp(min=0).sum()
        return min(1.0, float(beyond) * 2.0 ** (self.fraction_bits - 64))


def certain(number: str, low: float, high: float) -> Bound:
    """A bound beyond which results are wrong for certain."""
    return Bound(number, low, high, Kind.CERTAIN)


def rare(number: str, limit: float, fraction_bits: int) -> Bound:
    """A bound on |x| beyond which only truncation fails, and rarely."""
    return Bound(number, -limit, limit, Kind.RARE, fraction_bits)


@dataclass(frozen=True)
class Departure:
    """A number that left its range.

    Attributes:
        number, low, high, kind: of its bound.
        value: the one farthest outside, of those computed at once; None if it is not finite.
        layer: where; None outside the layers.
        token: at which new token, from 1; 0 in the prompt.
        chance: for a `rare` bound the probability that any truncation beyond it was wrong, over the whole run.
    """

    number: str
    low: float
    high: float
    kind: Kind
    value: float | None
    layer: int | None
    token: int
    chance: float | None = None

    def __str__(self) -> str:
        value = "not finite" if self.value is None else f"{self.value:,.6g}"
        layer = "" if self.layer is None else f" of layer {self.layer}"
        when = f"at new token {self.token}" if self.token else "in the prompt"
        return f"{self.number}{layer} is {value} {when}, outside {self.low:,.8g} to {self.high:,.8g}"

    def told(self) -> dict[str, Any]:
        """As plain values, for a record."""
        return {**asdict(self), "kind": str(self.kind)}


@dataclass
class Watch:
    """Sees the numbers of a plain run.

    Attributes:
        bounds: by the keys under which numbers are shown to `see`; others are not looked at.
        token: which new token is computed, 0 for the prompt.
        seen: least and largest value of each number so far, whether within its range or not.
        first: the first departure of each kind.
        chance: probability that any truncation beyond its bound was wrong.
    """

    bounds: Mapping[str, Bound]
    token: int = 0
    seen: dict[str, tuple[float, float]] = field(default_factory=dict)
    first: dict[Kind, Departure] = field(default_factory=dict)
    chance: float = 0.0

    def see(self, key: str, values: Tensor, layer: int | None, limit: float | None = None) -> None:
        """Compares numbers with their bound.

        Args:
            key: of the bound.
            values: the numbers.
            layer: where they are; None outside the layers.
            limit: of |x|, for numbers whose bound is not the engine's own.
        """
        bound = self.bounds.get(key)
        if bound is None or not values.numel():
            return
        low, high = (bound.low, bound.high) if limit is None else (-limit, limit)
        ends = [float(end) for end in values.aminmax()]
        least, largest = self.seen.get(key, (math.inf, -math.inf))
        self.seen[key] = (min(least, ends[0]), max(largest, ends[1]))
        if low <= ends[0] and ends[1] <= high:
            return
        if bound.kind is Kind.RARE:
            self.chance = min(1.0, self.chance + bound.chance(values))
        if bound.kind not in self.first:
            worst = ends[0] if low - ends[0] > ends[1] - high else ends[1]
            value = worst if math.isfinite(worst) else None
            self.first[bound.kind] = Departure(bound.number, low, high, bound.kind, value, layer, self.token)
