"""Top-k of many shuffled values by a sample and two pivots: five rounds and few comparisons.

A public sample is ranked. Two of its values, the pivots, enclose the k-th highest value with overwhelming probability;
they are compared with all others, and the values between them are ranked. This is Floyd and Rivest's selection (CACM
1975) with public sizes (`sample_sizes`): the dealer knows the number of comparisons but not their operands. So values
that are compared a second time are first opened under fresh masks, which the dealer knows.

Every opened bit compares two values of a uniformly random ranking, and the opened bits determine what is compared next:
a simulator draws a ranking and does the same.
"""

import torch
from torch import Tensor

from parties.decoding.program import Program
from parties.engines.fss.arithmetic.gates import TruncationFailure, open_, reveal_bits
from parties.engines.fss.arithmetic.values import Additive, Masked
from parties.engines.fss.compare.signs import negative
from parties.engines.fss.randomness.source import DEALER, Bits
from parties.engines.fss.topk.ranking import Places, open_ranking
from parties.engines.fss.topk.sample_sizes import ROW_MISS_BITS, SampleSizes

ROUNDS = 5


class PivotsMissed(TruncationFailure):
    """The pivots of this sample do not enclose the k-th value; the segment is run again, with a fresh shuffle."""


def top_k_by_pivots(x: Masked, sizes: SampleSizes) -> Program[Places]:
    """Finds the `sizes.count` highest of shuffled distinct keys x [heads, n]: public places, ascending, [heads, count].

    5 rounds; 1 online bit for each of `sizes.comparisons`, and 8 online bytes per pivot and per value of
    `sizes.between`.

    Raises:
        PivotsMissed: With probability below 2^-30 per row, whatever the keys are.
    """
    order = yield from open_ranking(x[:, : sizes.sample])
    pivots = yield from open_(_at(x, order[:, sizes.pivots]))
    below = yield from _below(x[:, sizes.sample :], pivots)
    if x.source.rank == DEALER:
        classes = torch.zeros(x.shape, dtype=torch.int64)
    else:
        x.source.retries.risk(x.shape[0], 2.0**-ROW_MISS_BITS)
        classes = _classes(order, below, sizes)
        where = x.source.meter.current
        x.source.refuse(
            _missed(classes, sizes), lambda: PivotsMissed(f"stage {where}, where the top k are found by pivots")
        )
    candidates = classes.ne(0).long().argsort(dim=1, stable=True)[:, : sizes.between]
    ranking = yield from open_ranking((yield from open_(_at(x, candidates))))
    if x.source.rank == DEALER:
        return torch.arange(sizes.count).repeat(x.shape[0], 1)
    return _chosen(classes, candidates, ranking, sizes.count)


def _below(x: Masked, pivots: Masked) -> Program[Bits]:
    """Opens [x < pivot]: [heads, m] and [heads, pivots] give [heads, m, pivots]. 1 round."""
    (heads, m), p = x.shape, pivots.shape[1]
    wide = (heads, m, p)
    gap = x.reshape(heads, m, 1).expand(*wide) - pivots.reshape(heads, 1, p).expand(*wide)
    return (yield from reveal_bits(x.source, (yield from negative(gap))))


def _classes(order: Places, below: Bits, sizes: SampleSizes) -> Places:
    """Classifies values [heads, n]: 1 above the pivots, 0 between them, -1 below."""
    of_sample = torch.zeros_like(order)
    of_sample[:, : sizes.high] = 1
    of_sample[:, max(0, sizes.low - 1) :] = -1
    classes = order.new_zeros(order.shape[0], sizes.n).scatter(1, order, of_sample)
    if sizes.high:
        classes[:, sizes.sample :] += 1 - below[:, :, 0].long()
    if sizes.low <= sizes.sample:
        classes[:, sizes.sample :] -= below[:, :, -1].long()
    return classes


def _missed(classes: Places, sizes: SampleSizes) -> Tensor:
    above, between = (classes == 1).sum(1), (classes == 0).sum(1)
    return ((above > sizes.count) | (above + between < sizes.count) | (between > sizes.between)).any()


def _chosen(classes: Places, candidates: Places, ranking: Places, count: int) -> Places:
    """Returns the places of each row's top `count`; candidates that are not between the pivots are padding.

    The values above the pivots come first, then those between them by rank, then everything else.
    """
    ordered = candidates.gather(1, ranking)
    last = classes.shape[1]
    order = torch.full_like(classes, last).masked_fill(classes == 1, -1)
    between = classes.gather(1, ordered) == 0
    ranks = torch.arange(ordered.shape[1], device=order.device).expand(ordered.shape)
    order = order.scatter(1, ordered, torch.where(between, ranks, order.gather(1, ordered)))
    return order.argsort(dim=1, stable=True)[:, :count].sort(1).values


def _at(x: Masked, places: Places) -> Additive:
    """Returns the values of x [heads, n] at public places [heads, m], as additive shares, for a fresh mask."""
    return x.additive()[torch.arange(places.shape[0]).unsqueeze(1), places]
