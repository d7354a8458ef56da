"""Top-k of many shuffled values by a sample and two pivots: five rounds and few comparisons.

A public sample is ranked. Two of its values, the pivots, enclose the k-th highest value with overwhelming probability;
they are compared with all others, and the values between them are ranked. This is Floyd and Rivest's selection (CACM
1975) with public sizes (`sample_sizes`): the dealer knows the number of comparisons but not their operands. So values
that are compared a second time are first opened under fresh masks, which the dealer knows.

Every opened bit compares two values of a uniformly random ranking, and the opened bits determine what is compared next:
a simulator draws a ranking and does the same.
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
        classes = np.zeros(x.shape, dtype=np.int64)
    else:
        x.source.retries.risk(x.shape[0], 2.0**-ROW_MISS_BITS)
        classes = _classes(order, below, sizes)
        _check(classes, sizes, x.source.meter.current)
    candidates: Places = np.not_equal(classes, 0).argsort(1, kind="stable")[:, : sizes.between]
    ranking = yield from open_ranking((yield from open_(_at(x, candidates))))
    if x.source.rank == DEALER:
        return np.tile(np.arange(sizes.count), (x.shape[0], 1))
    return np.stack([_chosen(*row, sizes.count) for row in zip(classes, candidates, ranking, strict=True)])


def _below(x: Masked, pivots: Masked) -> Program[NDArray[np.uint8]]:
    """Opens [x < pivot]: [heads, m] and [heads, pivots] give [heads, m, pivots]. 1 round."""
    (heads, m), p = x.shape, pivots.shape[1]
    wide = (heads, m, p)
    gap = x.reshape(heads, m, 1).expand(*wide) - pivots.reshape(heads, 1, p).expand(*wide)
    return (yield from reveal_bits(x.source, (yield from negative(gap))))


def _classes(order: Places, below: NDArray[np.uint8], sizes: SampleSizes) -> Places:
    """Classifies values [heads, n]: 1 above the pivots, 0 between them, -1 below."""
    place = np.arange(sizes.sample)
    of_sample = np.where(place < sizes.high, 1, np.where(place < sizes.low - 1, 0, -1))
    classes = np.zeros((order.shape[0], sizes.n), dtype=np.int64)
    np.put_along_axis(classes, order, np.broadcast_to(of_sample, order.shape), axis=1)
    if sizes.high:
        classes[:, sizes.sample :] += below[:, :, 0] == 0
    if sizes.low <= sizes.sample:
        classes[:, sizes.sample :] -= below[:, :, -1]
    return classes


def _check(classes: Places, sizes: SampleSizes, stage: str) -> None:
    above, between = (classes == 1).sum(1), (classes == 0).sum(1)
    if ((above > sizes.count) | (above + between < sizes.count) | (between > sizes.between)).any():
        raise PivotsMissed(f"stage {stage}, where the top k are found by pivots")


def _chosen(classes: Places, candidates: Places, ranking: Places, count: int) -> Places:
    """Returns the places of one row's top `count`; candidates that are not between the pivots are padding."""
    above = np.flatnonzero(classes == 1)
    ordered = candidates[ranking]
    between = ordered[classes[ordered] == 0]
    return np.sort(np.concatenate([above, between[: count - len(above)]]))


def _at(x: Masked, places: Places) -> Additive:
    """Returns the values of x [heads, n] at public places [heads, m], as additive shares, for a fresh mask."""
    return x.additive()[torch.arange(places.shape[0]).unsqueeze(1), torch.from_numpy(places)]
