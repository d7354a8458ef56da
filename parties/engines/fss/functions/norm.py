"""Root mean square and layer norms over seven orders of magnitude. Four rounds."""

import math
from functools import cache
from typing import NamedTuple

import numpy as np

from parties.decoding.program import Program, parallel
from parties.engines.fss.arithmetic import ring
from parties.engines.fss.arithmetic.gates import bilinear, open_, truncate
from parties.engines.fss.arithmetic.products import product
from parties.engines.fss.arithmetic.values import Masked
from parties.engines.fss.bounds import MEAN, MEAN_SQUARE
from parties.engines.fss.functions.tables import digit
from parties.engines.fss.functions.windowed import HIGHEST, Octaves, Reals
from parties.engines.limits import WIDEST_CENTRED

_LEAST = 2.0**-10  # mean squares from which on roots are as exact as stated
_ROOT_SCALE = 36  # of the inverse root as it is opened
_HIGH_SCALE, _LOW_SCALE = 18, 26
_MEAN_BITS = 24


@cache
def _inverse_root(d: int, scale: int, eps: float) -> Octaves:
    """1 / sqrt(S / d + eps) for sums of squares S."""

    def function(s: Reals) -> Reals:
        return 1 / np.sqrt(s / d + eps)

    low = scale + math.floor(math.log2(d * _LEAST))
    high = scale + math.ceil(math.log2(d * MEAN_SQUARE.high))
    return Octaves(function, low, high, scale, _ROOT_SCALE, 2.0 ** math.ceil(math.log2(min(eps, 1.0) ** -0.5)))


@cache
def _plain_inverse_root() -> Octaves:
    """1 / sqrt(x) for x from 2^-12 to 2^15, 32 fraction bits."""
    return Octaves(lambda x: 1 / np.sqrt(x), 20, 47, 32, 24, 64.0)


def inverse_root(x: Masked) -> Program[Masked]:
    """1 / sqrt(x), elementwise, for x from 2^-10 to 2^14. 2 rounds. Error: relative 2^-12 and absolute 2^-16.

    Costs what `Octaves.apply` does with 14 windows, and 8 online and 8 offline bytes, to the server.
    """
    octaves = _plain_inverse_root()
    return truncate((yield from open_((yield from octaves.apply(x.upscaled(octaves.scale))))))


class NormInput(NamedTuple):
    """What `normalise` takes.

    Attributes:
        x: rows [n, d], centred if they should be, 16 fraction bits.
        narrow: the same with so few fraction bits that the sum of a row's squares fits the ring.
    """

    x: Masked
    narrow: Masked


def to_norm(x: Masked, *, centre: bool) -> NormInput:
    """Rows [n, d] for `normalise`; if `centre`, their mean is taken off.

    Local, in the segment that opens the rows: it truncates them. 8 offline bytes, to the server, for each mean, and for
    each number that has more than 16 fraction bits or stands in a row of more than 512.

    Raises:
        DangerZone: see `truncate`.
        StaleMask: the rows come from an earlier segment.
        ValueError: centred rows are so wide that 1/d rounds too much.
    """
    d = x.shape[1]
    if centre and d > (most := WIDEST_CENTRED["fss"]):
        raise ValueError(f"rows of {d:,} numbers to be centred; at most {most:,}")
    if centre:
        total = x.sum(1, keepdim=True).times(round(2**_MEAN_BITS / d))
        mean = truncate(total.rescaled(x.scale + _MEAN_BITS).bounded(min(x.limit, MEAN.limit)), x.scale)
        x = x - mean.expand(*x.shape)
    x = truncate(x)
    over = 2 * ring.FRACTION_BITS + math.ceil(math.log2(d * MEAN_SQUARE.high)) - HIGHEST
    return NormInput(x, truncate(x, ring.FRACTION_BITS - (over + 1) // 2) if over > 0 else x)


def normalise(rows: NormInput, eps: float) -> Program[Masked]:
    """Each row of [n, d] over sqrt(mean square + eps).

    Range: `bounds.MEAN_SQUARE`. Error: relative 2^-11 where the mean square is above 2^-10, from the 16 fraction bits
    of x; the inverse root itself has 26 fraction bits, opened as a high and a low part so that neither product comes
    near the danger zone. 4 rounds. A row costs what `Octaves.apply` does with w = 16 windows, and 16 d + 16 online and
    32 d + 24 offline bytes, to the server.

    Raises:
        DangerZone: see `truncate`.
    """
    (x, narrow), d = rows, rows.x.shape[1]
    squares = yield from open_(
        bilinear(narrow, narrow, lambda a, b: (a * b).sum(1), 2.0 ** (HIGHEST - 2 * narrow.scale))
    )
    octaves = _inverse_root(d, squares.scale, eps)
    root = yield from open_((yield from octaves.apply(squares)))
    high = truncate(root, _HIGH_SCALE)
    low = digit(root, _ROOT_SCALE - _LOW_SCALE, _LOW_SCALE - _HIGH_SCALE)
    largest = math.sqrt(d) * 1.01
    parts = (product([x, high.reshape(-1, 1)], limit=largest + 1), product([x, low.reshape(-1, 1)]))
    opened = yield from parallel(*(open_(part) for part in parts))
    return (truncate(opened[0]) + truncate(opened[1])).bounded(largest)
