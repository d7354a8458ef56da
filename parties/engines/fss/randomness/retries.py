"""How often a segment may be run again: a test of the retries so far against the public rate of truncation failures.

An element that is declared to stay below 2^k fails with probability 2^(k - 63), whatever it is. Failures are therefore
a Poisson process whose clock is the sum of these public probabilities, and each party can detect too many: a peer or
the dealer provokes retries (each reveals the outcome of a comparison to the dealer, see docs/protocols.md), or a number
fails in every retry.
"""

import math
from dataclasses import dataclass

from parties.errors import PartyError

SIGNIFICANCE = 2.0**-20
"""Probability, at each retry, that the test ends an honest run."""


class RetriesImprobable(PartyError):  # noqa: N818 - named for what happened
    """There are more retries than chance explains."""

    def __init__(self, retries: int, expected: float, where: str, stage: str) -> None:
        super().__init__(retries, expected, where, stage)

    def __str__(self) -> str:
        retries, expected, where, stage = self.args
        return (
            f"truncation failure {retries} of {where}, in stage {stage}; the declared bounds predict {expected:.3g}, "
            f"and chance gives so many with a probability below 2^-20: the cell ends before the dealer learns of it; "
            f"run it again, and do not trust the dealer or the peer if it recurs"
        )


@dataclass
class Retries:
    """Counts failures in a session and in its current segment, and the expected number.

    Attributes:
        expected: Expected number of failures so far: the sum of the probabilities of all truncated elements.
        count: Failures so far.
    """

    expected: float = 0.0
    count: int = 0
    _segment: int = 0
    _before: float = 0.0

    def risk(self, elements: int, chance: float) -> None:
        """Adds elements that each fail with a probability of `chance`."""
        self.expected += elements * chance

    def begin(self) -> None:
        """Starts a segment."""
        self._segment, self._before = 0, self.expected

    def failed(self, stage: str) -> None:
        """Counts a failure of the segment.

        Raises:
            RetriesImprobable: Chance no longer explains the failures of the segment or of the session.
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
    """Returns P[N >= count] for a Poisson variable N with mean `expected`."""
    if count <= expected or not expected:
        return float(count <= expected)
    total = term = 1.0
    step = count + 1
    while term > total * 1e-12:
        term *= expected / step
        total += term
        step += 1
    return total * math.exp(count * math.log(expected) - expected - math.lgamma(count + 1))
