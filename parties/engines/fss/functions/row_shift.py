"""The shift of a row of scores in the softmax, near its log sum exp: coarse exponentials, summed and compared.

Each score's exponential is rounded to a coarse cell, at a few scales that together cover all scores; each scale is
summed over the row, and the sums are compared with powers of two, all powers with one key for each sum. Our own
construction. The sums come in one of two forms, with the same range of the shift:

* `tables`: a look-up for each score in cells of 1, whose sign costs a round.
* `dpf`: secret-shared counts of the scores in cells of 2, in no round, by a key of 96 bytes for each score at either
  party (`cell_dpf`); each scale is linear in the counts. For a few queries and rows of at most `LONGEST_COUNTED`: with
  many of them bytes and local work cost more than the round.
"""

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from parties.decoding.program import Program
from parties.engines.fss.arithmetic import ring
from parties.engines.fss.arithmetic.gates import open_
from parties.engines.fss.arithmetic.multiplication import signed_sum
from parties.engines.fss.arithmetic.values import Additive, Masked
from parties.engines.fss.bounds import PEAK, SCORE
from parties.engines.fss.compare.signs import count_below
from parties.engines.fss.functions.ladders import COUNTED_CELL, LONGEST_COUNTED, Ladder, ladder_of
from parties.engines.fss.functions.tables import Tables, look_up, window
from parties.engines.fss.kernels.cell_trees import CELLS, HASHES, KEY_BYTES
from parties.engines.fss.randomness import cell_dpf
from parties.engines.fss.randomness.source import DEALER
from parties.engines.fss.recording.tracer import untraced
from parties.engines.limits import FEW_ROWS


def row_shift(scores: Masked) -> Program[Masked]:
    """Computes a number per row, [..., 1]: log sum exp less this is between -3.5 and 1.3, but for rounding.

    3 rounds and those of `count_below` with `tables`, a round less with `dpf`. See `softmax.exponentials` for bytes.

    Args:
        scores: [..., queries, n].
    """
    source, n = scores.source, scores.shape[-1]
    ladder, spare = ladder_of(n), 0
    if source.softmax == "dpf" and n <= LONGEST_COUNTED and math.prod(scores.shape[-2:-1]) <= FEW_ROWS:
        ladder, spare = ladder.counted(n), cell_dpf.SPARE_BITS
        coarse = _sums_of_counts(scores, ladder)
    else:
        coarse = yield from _sums_of_tables(scores, ladder)
    sums = yield from open_(coarse)  # [floors, ...]
    count = (yield from count_below(sums, ladder.edges.long(), spare)).sum(0)
    step = round(ladder.step_bits * math.log(2) * ring.SCALE)
    down = Additive(source, count.share * -step, count.scale + ring.FRACTION_BITS, 128.0)
    opened = yield from open_(down.reshape(*down.shape, 1))
    return opened.plus(ladder.lowest_shift + ladder.span * ladder.floors).bounded(128.0)


def _sums_of_tables(scores: Masked, ladder: Ladder) -> Program[Additive]:
    """Sums at each scale over the row, [floors, ...]. 1 round."""
    found = look_up(scores.source, scores.public, scores.mask, scores.scale, _tables(ladder))
    opened = yield from open_(found.signed)
    return signed_sum(opened, found.sign, 2.0**ladder.sum_bits)


def _sums_of_counts(scores: Masked, ladder: Ladder) -> Additive:
    """Does the same without a round, times 2^SPARE_BITS."""
    source, (*rows, n) = scores.source, scores.shape
    start = scores.scale + COUNTED_CELL.bit_length() - 1
    places, cells = (
        ring.low_bits(part, start, CELLS.bit_length() - 1).reshape(-1, n) for part in (scores.public, scores.mask)
    )
    seeds, count = source.seeds(places.numel()), places.numel()
    key = source.broadcast(
        (count * KEY_BYTES,), lambda: cell_dpf.generate(source.permutation, cells.reshape(-1), *seeds)
    )
    source.evaluated(count * HASHES)
    source.note(_exponentials(ladder))
    if source.rank == DEALER:
        share = source.placeholder((ladder.floors, *rows))
    else:
        counts = cell_dpf.evaluate(source.permutation, source.rank, places, seeds[0], key)
        share = (counts * _by_floor(ladder, counts.device)).sum(-1).reshape(ladder.floors, *rows)
    return Additive(source, share, 0, 2.0 ** (ladder.sum_bits + cell_dpf.SPARE_BITS))


@cache
def _by_floor(ladder: Ladder, device: torch.device) -> Tensor:
    """Returns the exponentials on a device, [floors, 1, cells]."""
    with untraced():
        return _exponentials(ladder).unsqueeze(1).to(device)


@cache
def _tables(ladder: Ladder) -> Tables:
    with untraced():
        return Tables(_exponentials(ladder).numpy()[:, None])


@cache
def _exponentials(ladder: Ladder) -> Tensor:
    """Tabulates exp of a cell less each scale's floor, capped at the highest power: int64, [floors, cells].

    The cells cover scores over a range of 256 from the lowest one on.
    """
    cells = window(256 // ladder.cell, round(SCORE.low) // ladder.cell) * ladder.cell
    exps = np.stack([np.exp(cells - (PEAK.low + i * ladder.span)) for i in range(ladder.floors)])
    capped = np.minimum(exps * 2.0**ladder.coarse_bits, float(ladder.edges[-1]))
    with untraced():
        return torch.from_numpy(np.rint(capped).astype(np.int64))
