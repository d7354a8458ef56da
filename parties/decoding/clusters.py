"""Public geometry of clusters: which are always attended, which compete, how many are selected."""

from dataclasses import dataclass, replace
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
    def coarse_candidates(self) -> range:
        """Coarse clusters that compete."""
        return range(1, max(1, self.n_coarse - 1))

    @property
    def fine_candidates(self) -> range:
        """Fine clusters that may compete: all but the first and the last."""
        return range(1, max(1, self.n_fine - 1))

    @property
    def always(self) -> tuple[Span, ...]:
        """Tokens of the first and of the last fine cluster."""
        first, last = (0, min(self.fine, self.tokens)), ((self.n_fine - 1) * self.fine, self.tokens)
        return (first,) if self.n_fine <= 1 else (first, last)

    @property
    def parents(self) -> tuple[int | None, ...]:
        """For each fine candidate the index of its parent in `coarse_candidates`; None if that does not compete."""
        ratio = self.coarse // self.fine
        candidates = self.coarse_candidates
        return tuple(c // ratio - 1 if c // ratio in candidates else None for c in self.fine_candidates)

    def top_k(self, coarse_share: float, fine_share: float) -> tuple[int, int]:
        """Numbers of coarse and fine clusters to select; shares are of *all* clusters of a level, as in MPCache."""
        k_coarse = min(int(self.n_coarse * coarse_share), len(self.coarse_candidates))
        candidates = self.parents.count(None) + k_coarse * (self.coarse // self.fine)
        return k_coarse, min(int(self.n_fine * fine_share), candidates)


@dataclass(frozen=True)
class Selection:
    """The tokens that a step attends to: public spans, and secretly selected clusters.

    Attributes:
        size: Tokens in a cluster.
        always: Spans that every head attends to.
        candidates: Span of tokens, cut into full clusters, from which clusters are selected.
        count: Clusters selected by each head.
        selected: The engine's handle on the selected clusters; None when `count` is 0.
        rows: Keys and values of the selected clusters, [heads, count * size, head_dim] each, if they were fetched.
    """

    size: int
    always: tuple[Span, ...]
    candidates: Span
    count: int
    selected: Any
    rows: tuple[Any, Any] | None = None

    def extended(self, tokens: int) -> "Selection":
        """The selection with so many tokens more at the end of the last span, which ends with the newest token."""
        *spans, (start, stop) = self.always
        return replace(self, always=(*spans, (start, stop + tokens)))

    @property
    def attended(self) -> int:
        """Tokens that each head attends to."""
        return sum(stop - start for start, stop in self.always) + self.count * self.size
