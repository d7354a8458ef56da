"""Selection with CrypTen: secret one-hot rows from comparisons, and their products with what they select."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from parties.engines.crypten import compat  # noqa: F401 - must come before crypten
from parties.engines.crypten import functions as f

from crypten.mpc import MPCTensor  # isort: skip


@dataclass(frozen=True)
class OneHot:
    """A secret selection: integer shares of one-hot rows, [heads, k, candidates]."""

    rows: MPCTensor

    def fetch(self, values: MPCTensor) -> MPCTensor:
        """The selected values. Exact: a product with 0/1 integers is not truncated."""
        return self.rows.matmul(values)


def tournament(value: MPCTensor) -> torch.Tensor:
    """This party's shares of the position of the largest value of each row of [rows, n], integers, [rows]."""
    index = MPCTensor.from_shares(torch.zeros_like(value.share), precision=0) + torch.arange(value.shape[1])
    while (n := value.shape[1]) > 1:
        half = n // 2
        loses = f.less_than_zero(value[:, :half] - value[:, n - half :])
        rest = [slice(half, n - half)] if n % 2 else []
        both = torch.stack([value.share, index.share])
        step = loses * MPCTensor.from_shares(both[..., n - half :] - both[..., :half], precision=0)
        larger = torch.cat([both[..., :half] + step.share, *(both[..., part] for part in rest)], dim=2)
        value, index = MPCTensor.from_shares(larger[0]), MPCTensor.from_shares(larger[1], precision=0)
    share: torch.Tensor = index.share[:, 0]
    return share


def top_rows(scores: MPCTensor, count: int) -> OneHot:
    """The positions of the `count` largest scores of each row, in order."""
    return flagged_rows(f.less_than_zero(f.ranks(scores) - count), count)


def flagged_rows(flags: MPCTensor, count: int) -> OneHot:
    """The positions of the `count` integer flags of each row, in order: a prefix sum gives each its destination."""
    destination = MPCTensor.from_shares(flags.share.cumsum(1), precision=0) * flags - 1
    return OneHot(f.one_hot(destination, count))


def top_two_levels(
    coarse: MPCTensor, fine: MPCTensor, parents: Sequence[int | None], k_coarse: int, k_fine: int
) -> OneHot:
    """The largest `k_fine` of the orphans and of the children of the largest `k_coarse` coarse candidates.

    Args:
        coarse: Scores of the coarse candidates, [heads, coarse].
        fine: Scores of the fine candidates, [heads, candidates].
        parents: The coarse candidate of each fine one; None for an orphan.
        k_coarse: Number of coarse candidates to select; with 0, only the orphans remain.
        k_fine: Number of fine candidates to select.
    """
    heads, candidates = fine.shape
    orphans = [i for i, parent in enumerate(parents) if parent is None]
    rows = MPCTensor.from_shares(torch.zeros(heads, len(orphans), candidates, dtype=torch.int64), precision=0)
    rows = rows + torch.eye(candidates)[orphans]
    if k_coarse:
        joined = torch.cat([rows.share, _children(coarse, parents, k_coarse)], dim=1)
        rows = MPCTensor.from_shares(joined, precision=0)
    similarity = OneHot(rows).fetch(fine.reshape(heads, candidates, 1)).reshape(heads, -1)
    return OneHot(f.one_hot(f.ranks(similarity), k_fine).matmul(rows))


def _children(coarse: MPCTensor, parents: Sequence[int | None], count: int) -> torch.Tensor:
    """Shares of one-hot rows of all children of the `count` largest coarse candidates, [heads, rows, candidates]."""
    survivors = f.one_hot(f.ranks(coarse), count).share
    heads, candidates = survivors.shape[0], len(parents)
    children = torch.zeros(heads, count, parents.count(0), candidates, dtype=torch.int64)
    seen: dict[int, int] = {}
    for i, parent in enumerate(parents):
        if parent is not None:
            children[:, :, seen.get(parent, 0), i] = survivors[:, :, parent]
            seen[parent] = seen.get(parent, 0) + 1
    return children.reshape(heads, -1, candidates)
