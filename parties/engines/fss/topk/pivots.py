"""Top-k of shuffled values by a sample and a few pivots: five rounds and few comparisons.

A public sample of each row is ranked. Some of its values, the pivots, are compared with all others of the row. If the
k-th and the next value lie between the same two pivots, the values there are ranked, too. This is Floyd and Rivest's
selection (CACM 1975) with public sizes (`sample_sizes`): the dealer knows the number of comparisons but not their
operands. So pivots are first opened under fresh masks, which the dealer knows, and of values that are compared at the
end their difference is. All rows together have a public number of such pairs, since a sum over rows varies less.

Every opened bit compares two values of a uniformly random ranking, and the opened bits determine what is compared next:
a simulator draws rankings and does the same.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from parties.decoding.program import Program
from parties.engines.fss.arithmetic.gates import TruncationFailure, open_, reveal_bits
from parties.engines.fss.arithmetic.values import Additive, Masked
from parties.engines.fss.compare.signs import negative
from parties.engines.fss.randomness.source import DEALER
from parties.engines.fss.topk.ranking import Places, open_ranking
from parties.engines.fss.topk.sample_sizes import ROW_MISS_BITS, SampleSizes

ROUNDS = 5


class PivotsMissed(TruncationFailure):
    """More values lie between the pivots than the sizes allow; the segment is run again, with a fresh shuffle."""


def top_k_by_pivots(x: Masked, sizes: SampleSizes) -> Program[Places]:
    """Finds the `sizes.count` highest of shuffled distinct keys x [heads, n]: public places, ascending, [heads, count].

    5 rounds; 1 online bit for each of `sizes.comparisons`, and 8 online bytes per pivot and per pair of `sizes.pairs`.

    Raises:
        PivotsMissed: With probability below heads 2^-30, whatever the keys are.
    """
    order = yield from open_ranking(x[:, : sizes.sample])
    pivots = yield from open_(_at(x, order[:, list(sizes.pivots)]))
    below = yield from _below(x[:, sizes.sample :], pivots)
    if x.source.rank == DEALER:
        yield from _compare(x, np.zeros((0, 3), dtype=np.int64), sizes.pairs)
        return np.tile(np.arange(sizes.count), (x.shape[0], 1))
    x.source.retries.risk(x.shape[0], 2.0**-ROW_MISS_BITS)
    gaps = _gaps(order, below, sizes)
    pairs = _contested(gaps, sizes.count)
    if len(pairs) > sizes.pairs:
        raise PivotsMissed(f"stage {x.source.meter.current}, where the top k are found by pivots")
    loses = yield from _compare(x, pairs, sizes.pairs)
    losses = np.zeros(gaps.shape, dtype=np.int64)
    np.add.at(losses, (pairs[:, 0], np.where(loses, pairs[:, 1], pairs[:, 2])), 1)
    places: Places = np.sort(np.lexsort((losses, gaps))[:, : sizes.count], axis=1)
    return places


def _below(x: Masked, pivots: Masked) -> Program[NDArray[np.uint8]]:
    """Opens [x < pivot]: [heads, m] and [heads, pivots] give [heads, m, pivots]. 1 round."""
    (heads, m), p = x.shape, pivots.shape[1]
    wide = (heads, m, p)
    gap = x.reshape(heads, m, 1).expand(*wide) - pivots.reshape(heads, 1, p).expand(*wide)
    return (yield from reveal_bits(x.source, (yield from negative(gap))))


def _gaps(order: Places, below: NDArray[np.uint8], sizes: SampleSizes) -> Places:
    """Numbers the gaps between pivots from the top, and puts each value [heads, n] into one.

    A value below j pivots is in gap 2 j; the j-th pivot itself is alone in gap 2 j + 1, counted from 0.
    """
    place, pivots = np.arange(sizes.sample), np.array(sizes.pivots)
    of_sample = 2 * (place[:, None] > pivots).sum(1) + np.isin(place, pivots)
    gaps = np.zeros((order.shape[0], sizes.n), dtype=np.int64)
    np.put_along_axis(gaps, order, np.broadcast_to(of_sample, order.shape), axis=1)
    gaps[:, sizes.sample :] = 2 * below.sum(2, dtype=np.int64)
    return gaps


def _contested(gaps: Places, count: int) -> Places:
    """Returns the pairs in the gaps that hold the k-th and the next value, as head and two places, [pairs, 3]."""
    ordered = np.sort(gaps, axis=1)
    last, following = ordered[:, count - 1], ordered[:, count]
    pairs = [np.zeros((0, 3), dtype=np.int64)]
    for head in np.flatnonzero(last == following):
        places = np.flatnonzero(gaps[head] == last[head])
        first, second = np.triu_indices(len(places), 1)
        pairs.append(np.stack([np.full(len(first), head), places[first], places[second]], axis=1))
    return np.concatenate(pairs)


def _compare(x: Masked, pairs: Places, total: int) -> Program[NDArray[np.uint8]]:
    """Opens [x_i < x_j] for rows (head, i, j) of `pairs`. 2 rounds.

    There are always `total` comparisons: the rest repeats one of the sample, whose outcome is known.
    """
    known = np.tile(np.array([[0, 0, 1]]), (total - len(pairs), 1))
    head, first, second = (torch.from_numpy(column) for column in np.concatenate([pairs, known]).T)
    keys = x.additive()
    gap = yield from open_(keys[head, first] - keys[head, second])
    return (yield from reveal_bits(x.source, (yield from negative(gap))))[: len(pairs)]


def _at(x: Masked, places: Places) -> Additive:
    """Returns the values of x [heads, n] at public places [heads, m], as additive shares, for a fresh mask."""
    return x.additive()[torch.arange(places.shape[0]).unsqueeze(1), torch.from_numpy(places)]
