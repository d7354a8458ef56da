"""The highest of many shuffled values by a sample and two pivots: five rounds, and few comparisons.

A public sample is ranked; two of it, between which the last winner almost surely lies, are compared with all others;
what lies between them is ranked. As in Floyd and Rivest's selection (CACM 1975), but with public sizes (`caps`): the
dealer knows how many comparisons there will be, and not of what. So what is compared again is first opened under fresh
masks, which the dealer knows.

Every opened bit compares two of a uniformly random ranking, and what is compared next follows from the bits before: a
simulator draws a ranking and does the same.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from parties.decoding.program import Program
from parties.engines.fss.arithmetic.gates import DangerZone, open_, reveal_bits
from parties.engines.fss.arithmetic.values import Additive, Masked
from parties.engines.fss.compare.signs import negative
from parties.engines.fss.randomness.source import DEALER
from parties.engines.fss.topk.ranking import Places, ranked
from parties.engines.fss.topk.sample_sizes import MISSED_BITS, Caps

ROUNDS = 5


class Missed(DangerZone):
    """The sample was an unlucky one: the piece starts again with fresh material, and a fresh shuffle."""


def highest(x: Masked, sizes: Caps) -> Program[Places]:
    """The `sizes.count` highest of shuffled distinct keys x [heads, n]: public places, ascending, [heads, count].

    5 rounds; 1 bit for each of `sizes.comparisons`, and 8 online bytes for each pivot and each of `sizes.between`.

    Raises:
        Missed: with probability below 2^-30 a row, whatever the keys are.
    """
    order = yield from ranked(x[:, : sizes.sample])
    pivots = yield from open_(_at(x, order[:, sizes.pivots]))
    below = yield from _below(x[:, sizes.sample :], pivots)
    if x.source.rank == DEALER:
        classes = np.zeros(x.shape, dtype=np.int64)
    else:
        x.source.retries.risk(x.shape[0], 2.0**-MISSED_BITS)
        classes = _classes(order, below, sizes)
        _check(classes, sizes, x.source.meter.current)
    rivals: Places = np.not_equal(classes, 0).argsort(1, kind="stable")[:, : sizes.between]
    ranking = yield from ranked((yield from open_(_at(x, rivals))))
    if x.source.rank == DEALER:
        return np.tile(np.arange(sizes.count), (x.shape[0], 1))
    return np.stack([_chosen(*row, sizes.count) for row in zip(classes, rivals, ranking, strict=True)])


def _below(x: Masked, pivots: Masked) -> Program[NDArray[np.uint8]]:
    """[x < pivot] in the open: [heads, m] and [heads, pivots] give [heads, m, pivots]. 1 round."""
    (heads, m), p = x.shape, pivots.shape[1]
    wide = (heads, m, p)
    gap = x.reshape(heads, m, 1).expand(*wide) - pivots.reshape(heads, 1, p).expand(*wide)
    return (yield from reveal_bits(x.source, (yield from negative(gap))))


def _classes(order: Places, below: NDArray[np.uint8], sizes: Caps) -> Places:
    """1 for what surely wins, 0 for what lies between the pivots, -1 for what surely loses: [heads, n]."""
    place = np.arange(sizes.sample)
    of_sample = np.where(place < sizes.high, 1, np.where(place < sizes.low - 1, 0, -1))
    classes = np.zeros((order.shape[0], sizes.n), dtype=np.int64)
    np.put_along_axis(classes, order, np.broadcast_to(of_sample, order.shape), axis=1)
    if sizes.high:
        classes[:, sizes.sample :] += below[:, :, 0] == 0
    if sizes.low <= sizes.sample:
        classes[:, sizes.sample :] -= below[:, :, -1]
    return classes


def _check(classes: Places, sizes: Caps, stage: str) -> None:
    wins, between = (classes == 1).sum(1), (classes == 0).sum(1)
    if ((wins > sizes.count) | (wins + between < sizes.count) | (between > sizes.between)).any():
        raise Missed(f"stage {stage}, where the best are found by pivots")


def _chosen(classes: Places, rivals: Places, ranking: Places, count: int) -> Places:
    """Places of one row; rivals beyond those between the pivots only fill up."""
    wins = np.flatnonzero(classes == 1)
    contested = rivals[ranking]
    contested = contested[classes[contested] == 0]
    return np.sort(np.concatenate([wins, contested[: count - len(wins)]]))


def _at(x: Masked, places: Places) -> Additive:
    """Values of x [heads, n] at public places [heads, m], as shares for a fresh mask."""
    return x.additive()[torch.arange(places.shape[0]).unsqueeze(1), torch.from_numpy(places)]
