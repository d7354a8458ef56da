"""Private inputs: additive shares of what one party knows."""

from collections.abc import Sequence

import torch
from torch import Tensor

from parties.engines.fss.arithmetic.values import Additive
from parties.engines.fss.randomness.source import DEALER, Source


def private_input(source: Source, shape: Sequence[int], integers: Tensor | None, scale: int, limit: float) -> Additive:
    """Shares integers that one party knows, without communication: the other party's share is zero.

    Args:
        source: This party's correlated randomness.
        shape: Public shape.
        integers: The input, int64, at its owner; None elsewhere.
        scale: Fraction bits.
        limit: Bound on the absolute values.
    """
    if source.rank == DEALER:
        share = source.placeholder(shape)
    else:
        zeros = torch.zeros(tuple(shape), dtype=torch.int64)
        share = (zeros if integers is None else integers).to(source.device)
    return Additive(source, share, scale, limit)
