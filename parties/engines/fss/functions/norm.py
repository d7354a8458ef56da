"""Root mean square and layer norms over seven orders of magnitude. Four rounds."""

import math
from functools import cache
from typing import NamedTuple

import numpy as np

from parties.decoding.program import Program, parallel
from parties.engines.fss.arithmetic import ring
from parties.engines.fss.arithmetic.gates import multiply_bilinear, open_, truncate
from parties.engines.fss.arithmetic.multiplication import multiply
from parties.engines.fss.arithmetic.values import Masked
from parties.engines.fss.functions.tables import digit
from parties.engines.fss.functions.windowed import HIGHEST, Reals, WindowedFunction
from parties.engines.limits import WIDEST_CENTRED

_LEAST = 2.0**-10  # the least mean square for which the stated error holds
_ROOT_SCALE = 36  # fraction bits of the inverse root as it is opened
_HIGH_SCALE, _LOW_SCALE = 18, 26
_MEAN_BITS = 24


@cache
def _inverse_root(d: int, scale: int, eps: float, largest: float) -> WindowedFunction:
    """Tabulates 1 / sqrt(S / d + eps) for sums of squares S, up to a mean square of `largest`."""

    def function(s: Reals) -> Reals:
        return 1 / np.sqrt(s / d + eps)

    low = scale + math.floor(math.log2(d * _LEAST))
    high = scale + math.ceil(math.log2(d * largest))
    return WindowedFunction(function, low, high, scale, _ROOT_SCALE, 2.0 ** math.ceil(math.log2(min(eps, 1.0) ** -0.5)))


@cache
def _plain_inverse_root() -> WindowedFunction:
    """Tabulates 1 / sqrt(x) for x from 2^-12 to 2^15, 32 fraction bits."""
    return WindowedFunction(lambda x: 1 / np.sqrt(x), 20, 47, 32, 24, 64.0)


def inverse_root(x: Masked) -> Program[Masked]:
    """Computes 1 / sqrt(x), elementwise, for x from 2^-10 to 2^14. 2 rounds. Error: relative 2^-12 and absolute 2^-16.

    Costs what `WindowedFunction.apply` does with 14 windows, and 8 online and 8 offline bytes, to the server.
    """
    windowed = _plain_inverse_root()
    return truncate((yield from open_((yield from windowed.apply(x.upscaled(windowed.scale))))))


class NormInput(NamedTuple):
    """The input of `normalise`.

    Attributes:
        x: Rows [n, d], centred for a layer norm, 16 fraction bits.
        narrow: The same rows with so few fraction bits that the sum of a row's squares fits the ring.
    """

    x: Masked
    narrow: Masked


def to_norm(x: Masked, *, centre: bool) -> NormInput:
    """Prepares rows [n, d] for `normalise`; subtracts their mean if `centre`.

    Local, but it truncates the rows, so it belongs in the segment that opens them. 8 offline bytes, to the server, per
    mean, and per number that has more than 16 fraction bits or is in a row of more than 512.

    Raises:
        TruncationFailure: See `truncate`.
        StaleMask: The rows come from an earlier segment.
        ValueError: The rows are to be centred and so wide that 1/d is rounded too coarsely.
    """
    d, bounds = x.shape[1], x.source.bounds
    if centre and d > (most := WIDEST_CENTRED["fss"]):
        raise ValueError(f"rows of {d:,} numbers to be centred; at most {most:,}")
    if centre:
        total = x.sum(1, keepdim=True).times(round(2**_MEAN_BITS / d))
        mean = truncate(total.rescaled(x.scale + _MEAN_BITS).bounded(min(x.limit, bounds["mean"].limit)), x.scale)
        x = x - mean.expand(*x.shape)
    x = truncate(x)
    over = 2 * ring.FRACTION_BITS + math.ceil(math.log2(d * bounds["mean square"].high)) - HIGHEST
    return NormInput(x, truncate(x, ring.FRACTION_BITS - (over + 1) // 2) if over > 0 else x)


def normalise(rows: NormInput, eps: float) -> Program[Masked]:
    """Divides each row of [n, d] by sqrt(mean square + eps).

    Range: the bound of `mean square`. Error: relative 2^-11 where the mean square is above 2^-10, from the 16 fraction
    bits of x. The inverse root itself has 26 fraction bits, split into a high and a low part to keep the truncation
    failures of both products rare. 4 rounds. A row costs what `WindowedFunction.apply` does with w = 16 windows, and
    16 d + 16 online and 32 d + 24 offline bytes, to the server. A wider range has a window more for each factor of
    four. The numbers that are squared then have a fraction bit less, so rows of a small mean square lose precision.

    Raises:
        TruncationFailure: See `truncate`.
    """
    (x, narrow), d, largest_square = rows, rows.x.shape[1], rows.x.source.bounds["mean square"].high
    squares = yield from open_(
        multiply_bilinear(narrow, narrow, lambda a, b: (a * b).sum(1), 2.0 ** (HIGHEST - 2 * narrow.scale))
    )
    root = yield from open_((yield from _inverse_root(d, squares.scale, eps, largest_square).apply(squares)))
    high = truncate(root, _HIGH_SCALE)
    low = digit(root, _ROOT_SCALE - _LOW_SCALE, _LOW_SCALE - _HIGH_SCALE)
    largest = math.sqrt(d) * 1.01
    parts = (multiply([x, high.reshape(-1, 1)], limit=largest + 1), multiply([x, low.reshape(-1, 1)]))
    opened = yield from parallel(*(open_(part) for part in parts))
    return (truncate(opened[0]) + truncate(opened[1])).bounded(largest)
