"""Ranges of numbers that an engine declares, and a watch that compares a plain run with them.

The `plain` engine computes over any range; a private engine does not. Each private engine has one table of its bounds.
The referee's plain run is compared with it, so that a model or a prompt whose numbers leave a range is refused or
flagged, with the name of the number.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from torch import Tensor


class Kind(StrEnum):
    """The consequence of a number beyond its bound.

    Attributes:
        CERTAIN: The number enters a comparison, a look-up or a series: the result is certainly wrong, and an opened
            ranking of such numbers is not uniformly random and leaks.
        RARE: The number is only truncated: the result is wrong, undetected, with a small probability that grows with
            the number.
    """

    CERTAIN = "certain"
    RARE = "rare"


@dataclass(frozen=True)
class Bound:
    """The declared range of one number.

    Attributes:
        number: Description of the number, by its place in the decoder.
        low: The least allowed value.
        high: The largest allowed value.
        kind: The consequence of a value outside.
        fraction_bits: Fraction bits before truncation, for a number that is truncated.
    """

    number: str
    low: float
    high: float
    kind: Kind
    fraction_bits: int = 0

    @property
    def limit(self) -> float:
        """The least power of two that no |x| in the range exceeds."""
        return float(2.0 ** math.ceil(math.log2(max(abs(self.low), abs(self.high)))))

    def chance(self, values: Tensor) -> float:
        """Returns the probability that a truncation of `values` is wrong: sum of (|x| - bound) / 2^64, in integers."""
        beyond = (values.double().abs() - self.high).clamp(min=0).sum()
        return min(1.0, float(beyond) * 2.0 ** (self.fraction_bits - 64))


def certain(number: str, low: float, high: float) -> Bound:
    """Declares a bound beyond which results are certainly wrong."""
    return Bound(number, low, high, Kind.CERTAIN)


def rare(number: str, limit: float, fraction_bits: int) -> Bound:
    """Declares a bound on |x| beyond which only truncation fails, and rarely."""
    return Bound(number, -limit, limit, Kind.RARE, fraction_bits)


@dataclass(frozen=True)
class Departure:
    """A number that left its range.

    Attributes:
        number, low, high, kind: See `Bound`.
        value: The value farthest outside, of those computed in one operation; None if it is not finite.
        layer: Index of the layer; None outside the layers.
        token: Number of the new token, from 1; 0 in the prompt.
        chance: For a `rare` bound, the probability that a truncation beyond it was wrong, over the whole run.
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

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as plain values, for a record."""
        return {**asdict(self), "kind": str(self.kind)}


@dataclass
class Watch:
    """Compares the numbers of a plain run with declared bounds.

    Attributes:
        bounds: Bounds by key; numbers of other keys are ignored.
        token: Number of the new token that is computed, 0 for the prompt.
        seen: Least and largest value per key so far, in the range or not.
        first: The first departure of each kind.
        chance: Probability that a truncation beyond its bound was wrong.
    """

    bounds: Mapping[str, Bound]
    token: int = 0
    seen: dict[str, tuple[float, float]] = field(default_factory=dict)
    first: dict[Kind, Departure] = field(default_factory=dict)
    chance: float = 0.0

    def see(self, key: str, values: Tensor, layer: int | None, limit: float | None = None) -> None:
        """Compares numbers with their bound.

        Args:
            key: Key of the bound.
            values: The numbers, float.
            layer: Index of the layer; None outside the layers.
            limit: Bound of |x| that replaces the engine's own, for numbers that a policy declares.
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
