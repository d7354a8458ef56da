"""The ranking of shuffled values, opened, by comparing all pairs."""

import torch
from torch import Tensor

from parties.decoding.program import Program
from parties.engines.fss.arithmetic.gates import reveal_bits
from parties.engines.fss.arithmetic.values import Masked
from parties.engines.fss.randomness.source import DEALER
from parties.engines.fss.topk.maximum import compare_pairs

Places = Tensor
"""Public places, int64."""


def open_ranking(x: Masked) -> Program[Places]:
    """Ranks shuffled distinct keys x [heads, n], n above 1: public places, highest first, [heads, n].

    1 round after those of a sign (`dcf` has none), 1 online bit per pair. The dealer, who sees no bit, gets the places
    in ascending order.
    """
    heads, n = x.shape
    below = yield from reveal_bits(x.source, (yield from compare_pairs(x)))
    if x.source.rank == DEALER:
        return torch.arange(n).repeat(heads, 1)
    loses = torch.zeros(heads, n, n, dtype=torch.int64, device=below.device)
    first, second = torch.triu_indices(n, n, offset=1, device=below.device)
    loses[:, first, second] = below.long()
    loses[:, second, first] = 1 - below.long()
    return loses.sum(2).argsort(dim=1, stable=True)
