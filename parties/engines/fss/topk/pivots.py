"""Top-k of shuffled values by a sample and a few pivots: five rounds and few comparisons.

A public sample of each row is ranked. Some of its values, the pivots, are compared with all others of the row. If the
k-th and the next value lie between the same two pivots, the values there are ranked, too. This is Floyd and Rivest's
selection (CACM 1975) with public sizes (`sample_sizes`): the dealer knows the number of comparisons but not their
operands. So pivots are first opened under fresh masks, which the dealer knows, and of values that are compared at the
end their difference is. All rows together have a public number of such pairs, since a sum over rows varies less.

Every opened bit compares two values of a uniformly random ranking, and the opened bits determine what is compared next:
a simulator draws rankings and does the same.
"""

import math

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

Pairs = tuple[Tensor, Tensor, Tensor]
"""Rows and two places in each, [pairs]."""


class PivotsMissed(TruncationFailure):
    """More values lie between the pivots than the sizes allow; the segment is run again, with a fresh shuffle."""


def top_k_by_pivots(x: Masked, sizes: SampleSizes) -> Program[Places]:
    """Finds the `sizes.count` highest of shuffled distinct keys x [rows, n]: public places, ascending, [rows, count].

    5 rounds; 1 online bit for each of `sizes.comparisons`, and 8 online bytes per pivot and per pair of `sizes.pairs`.

    Raises:
        PivotsMissed: With probability below rows 2^-30, whatever the keys are.
    """
    source, rows = x.source, x.shape[0]
    source.retries.risk(rows, 2.0**-ROW_MISS_BITS)
    order = yield from open_ranking(x[:, : sizes.sample])
    pivots = yield from open_(_at(x, order[:, list(sizes.pivots)]))
    below = yield from _below(x[:, sizes.sample :], pivots)
    if source.rank == DEALER:
        nothing = torch.zeros(sizes.pairs, dtype=torch.int64)
        yield from _compare(x, (nothing, nothing, nothing))
        return torch.arange(sizes.count).repeat(rows, 1)
    gaps = _gaps(order, below, sizes)
    pairs, found = _contested(gaps, sizes)
    where = source.meter.current
    source.refuse(found > sizes.pairs, lambda: PivotsMissed(f"stage {where}, where the top k are found by pivots"))
    loses = yield from _compare(x, pairs)
    return _chosen(gaps, pairs, loses, found, sizes.count)


def _below(x: Masked, pivots: Masked) -> Program[Bits]:
    """Opens [x < pivot]: [rows, m] and [rows, pivots] give [rows, m, pivots]. 1 round."""
    (rows, m), p = x.shape, pivots.shape[1]
    wide = (rows, m, p)
    gap = x.reshape(rows, m, 1).expand(*wide) - pivots.reshape(rows, 1, p).expand(*wide)
    return (yield from reveal_bits(x.source, (yield from negative(gap))))


def _gaps(order: Places, below: Bits, sizes: SampleSizes) -> Places:
    """Numbers the gaps between pivots from the top, and puts each value [rows, n] into one.

    A value below j pivots is in gap 2 j; the j-th pivot itself is alone in gap 2 j + 1, counted from 0.
    """
    place, pivots = (torch.as_tensor(ranks, device=order.device) for ranks in (range(sizes.sample), sizes.pivots))
    of_sample = 2 * (place.unsqueeze(1) > pivots).sum(1) + (place.unsqueeze(1) == pivots).sum(1)
    gaps = torch.zeros(order.shape[0], sizes.sample, dtype=torch.int64, device=order.device)
    return torch.cat([gaps.scatter(1, order, of_sample.expand_as(order)), 2 * below.long().sum(2)], dim=1)


def _contested(gaps: Places, sizes: SampleSizes) -> tuple[Pairs, Tensor]:
    """Returns the pairs in the gaps that hold the k-th and the next value, row by row, and their number.

    There are always `sizes.pairs` of them: the rest repeats one of the sample, whose outcome is known.
    """
    ordered = gaps.sort(dim=1).values
    last, following = ordered[:, sizes.count - 1 : sizes.count], ordered[:, sizes.count : sizes.count + 1]
    inside = (gaps == last) & (last == following)
    places, size = (~inside).long().argsort(dim=1, stable=True), inside.sum(1)
    ends = (size * (size - 1) // 2).cumsum(0)
    slot = torch.arange(sizes.pairs, device=gaps.device)
    row = torch.searchsorted(ends, slot, right=True).clamp(max=len(ends) - 1)
    within = slot - torch.cat([ends.new_zeros(1), ends])[row]
    used = slot < ends[-1]
    within = torch.where(used, within, 0)
    side = math.isqrt(2 * sizes.pairs) + 2
    high, low = torch.tril_indices(side, side, offset=-1, device=gaps.device)  # pairs in the order of the higher place
    first, second = (places[row, of_pair[within]] for of_pair in (low, high))
    return (torch.where(used, row, 0), torch.where(used, first, 0), torch.where(used, second, 1)), ends[-1]


def _compare(x: Masked, pairs: Pairs) -> Program[Bits]:
    """Opens [x_i < x_j] for each of `pairs`. 2 rounds."""
    row, first, second = pairs
    keys = x.additive()
    gap = yield from open_(keys[row, first] - keys[row, second])
    return (yield from reveal_bits(x.source, (yield from negative(gap))))


def _chosen(gaps: Places, pairs: Pairs, loses: Bits, found: Tensor, count: int) -> Places:
    """Returns the places of each row's top `count`: by gap, then by the comparisons that a value lost."""
    row, first, second = pairs
    used = (torch.arange(len(row), device=row.device) < found).long()
    n = gaps.shape[1]
    losers = row * n + torch.where(loses.bool(), first, second)
    losses = torch.zeros(gaps.numel(), dtype=torch.int64, device=gaps.device).scatter_add(0, losers, used)
    keys = gaps * n + losses.reshape(gaps.shape)
    return keys.argsort(dim=1, stable=True)[:, :count].sort(1).values


def _at(x: Masked, places: Places) -> Additive:
    """Returns the values of x [rows, n] at public places [rows, m], as additive shares, for a fresh mask."""
    return x.additive()[torch.arange(places.shape[0]).unsqueeze(1), places]
