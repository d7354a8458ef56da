"""Public geometry of clusters: which are always attended, which compete, how many win."""

from dataclasses import dataclass
from typing import Any

Span = tuple[int, int]
"""Tokens from the first number up to, and without, the second."""


@dataclass(frozen=True)
class Clustering:
    """`tokens` cached tokens cut into runs of adjacent tokens, coarse ones that hold whole fine ones.

    The first cluster (sink) and the last one (recent, maybe incomplete) are always attended, so they do not compete, on
    either level. Every cluster that competes is full. All of this follows from public numbers.
    """

    tokens: int
    fine: int
    coarse: int

    @property
    def n_fine(self) -> int:
        """Number of fine clusters."""
        return -(-self.tokens // self.fine)

    @property
    def n_coarse(self) -> int:
        """Number of coarse clusters."""
        return -(-self.tokens // self.coarse)

    @property
    def coarse_rivals(self) -> range:
        """Coarse clusters that compete."""
        return range(1, max(1, self.n_coarse - 1))

    @property
    def fine_rivals(self) -> range:
        """Fine clusters that may compete: all but the first and the last."""
        return range(1, max(1, self.n_fine - 1))

    @property
    def always(self) -> tuple[Span, ...]:
        """Tokens of the first and of the last fine cluster."""
        first, last = (0, min(self.fine, self.tokens)), ((self.n_fine - 1) * self.fine, self.tokens)
        return (first,) if self.n_fine <= 1 else (first, last)

    @property
    def parents(self) -> tuple[int | None, ...]:
        """For each fine rival its coarse cluster's place among `coarse_rivals`; None if that one is always kept."""
        ratio = self.coarse // self.fine
        rivals = self.coarse_rivals
        return tuple(c // ratio - 1 if c // ratio in rivals else None for c in self.fine_rivals)

    def winners(self, coarse_share: float, fine_share: float) -> tuple[int, int]:
        """How many coarse and fine rivals win; shares are of *all* clusters of the level, as in MPCache's code."""
        k_coarse = min(int(self.n_coarse * coarse_share), len(self.coarse_rivals))
        candidates = self.parents.count(None) + k_coarse * (self.coarse // self.fine)
        return k_coarse, min(int(self.n_fine * fine_share), candidates)


@dataclass(frozen=True)
class Selection:
    """What a step attends to: public spans, and secret picks among the fine rivals.

    Attributes:
        size: tokens in a cluster.
        always: spans that every head attends to.
        rivals: span of tokens, cut into full clusters, that the picks choose from.
        count: clusters picked by each head.
        picks: the engine's handle on which ones; None when `count` is 0.
    """

    size: int
    always: tuple[Span, ...]
    rivals: Span
    count: int
    picks: Any

    @property
    def attended(self) -> int:
        """Tokens that each head attends to."""
        return sum(stop - start for start, stop in self.always) + self.count * self.size
