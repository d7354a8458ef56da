"""How often a segment may be run again: the public rate of truncation failures says what is bad luck and what is not.

An element that is declared to stay below 2^k fails with probability 2^(k - 63), whatever it is. Failures therefore come
like the events of a Poisson process whose clock is the sum of these public numbers, and each party can tell by itself
when there are too many: a peer or a dealer provokes retries (each tells the dealer the outcome of a comparison, see
docs/protocols.md), or there is a number that no retry can mend.
"""

import math
from dataclasses import dataclass

from parties.errors import PartyError

SIGNIFICANCE = 2.0**-20
"""An honest run is ended at a retry with a probability below this."""


class RetriesImprobable(PartyError):  # noqa: N818 - named for what happened
    """More retries than chance explains."""

    def __init__(self, retries: int, expected: float, where: str, stage: str) -> None:
        super().__init__(retries, expected, where, stage)

    def __str__(self) -> str:
        retries, expected, where, stage = self.args
        return (
            f"truncation failure {retries} of {where}, in stage {stage}; by the declared bounds {expected:.3g} were to "
            f"be expected, and chance gives so many with a probability below 2^-20: the cell ends before the dealer is "
            f"told; run it again, and do not trust the dealer or the peer if it recurs"
        )


@dataclass
class Retries:
    """Counts failures in a session and in its current segment, against what was to be expected.

    Attributes:
        expected: failures that were to be expected so far: the sum over all elements that were truncated.
        count: failures so far.
    """

    expected: float = 0.0
    count: int = 0
    _segment: int = 0
    _before: float = 0.0

    def risk(self, elements: int, chance: float) -> None:
        """So many elements are at risk now, each with this chance to fail."""
        self.expected += elements * chance

    def begin(self) -> None:
        """A new segment begins."""
        self._segment, self._before = 0, self.expected

    def failed(self, stage: str) -> None:
        """The segment has failed once more.

        Raises:
            RetriesImprobable: chance explains the failures of the segment, or of the session, no longer.
        """
        self.count += 1
        self._segment += 1
        for count, expected, where in (
            (self._segment, self.expected - self._before, "one segment"),
            (self.count, self.expected, "the session"),
        ):
            if tail(count, expected) < SIGNIFICANCE:
                raise RetriesImprobable(count, expected, where, stage)


def tail(count: int, expected: float) -> float:
    """P[N >= count] for a Poisson number N with mean `expected`."""
    if count <= expected or not expected:
        return float(count <= expected)
    total = term = 1.0
    step = count + 1
    while term > total * 1e-12:
        term *= expected / step
        total += term
        step += 1
    return total * math.exp(count * math.log(expected) - expected - math.lgamma(count + 1))
