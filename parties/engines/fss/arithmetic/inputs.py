"""Numbers that one party owns, and results that one party may see."""

from collections.abc import Sequence

import torch
from torch import Tensor

from parties.engines.fss.arithmetic.values import Additive
from parties.engines.fss.randomness.source import DEALER, Source


def owned(source: Source, shape: Sequence[int], integers: Tensor | None, scale: int, limit: float) -> Additive:
    """Additive shares of integers that one party knows and the others do not (None): no communication."""
    if source.rank == DEALER:
        share = source.stand_in(shape)
    else:
        nothing = torch.zeros(tuple(shape), dtype=torch.int64)
        share = (nothing if integers is None else integers).to(source.device)
    return Additive(source, share, scale, limit)
