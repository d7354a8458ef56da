"""Root mean square and layer norms over seven orders of magnitude. Three rounds for a few rows, four for many.

With a matrix product that follows they take as many: the product of the rows as they are is opened together with their
sums of squares, and divided in the end (`scaled_after`). That needs no opened row, but the product twice, so it is for
a few rows.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np

from parties.decoding.program import Program, parallel
from parties.engines.bounds import Bound
from parties.engines.fss.arithmetic import ring
from parties.engines.fss.arithmetic.gates import multiply_bilinear, open_, truncate
from parties.engines.fss.arithmetic.multiplication import multiply
from parties.engines.fss.arithmetic.values import Additive, Masked
from parties.engines.fss.bounds import FIRST_LAYER_LIMIT
from parties.engines.fss.functions.tables import digit
from parties.engines.fss.functions.windowed import HIGHEST, LOWEST, Reals, WindowedFunction
from parties.engines.limits import WIDEST_CENTRED

_LEAST = 2.0**-10  # the least mean square for which the stated error holds
_ROOT_SCALE = 36  # fraction bits of the inverse root as it is opened
_HIGH_SCALE, _LOW_SCALE = 18, 26
SCALED_BITS = 34  # fraction bits of an inverse root times a product
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
    """Computes 1 / sqrt(x), elementwise, for x from 2^-10 to 2^14. Error: relative 2^-12 and absolute 2^-16.

    1 round and that of `WindowedFunction.apply`, whose bytes with 14 windows it takes, and 8 online and 8 offline
    bytes, to the server.
    """
    windowed = _plain_inverse_root()
    return truncate((yield from open_((yield from windowed.apply(x.upscaled(windowed.scale))))))


class NormInput(NamedTuple):
    """The input of a norm.

    Attributes:
        x: Rows [n, d], centred for a layer norm, 16 fraction bits.
        narrow: The same rows with so few fraction bits that the sum of a row's squares fits the ring, and that its
            products with a matrix rarely fail to be truncated: 13, up to 16 in the first layer.
    """

    x: Masked
    narrow: Masked

    @property
    def unscaled(self) -> Bound:
        """Bound of the products of `narrow` with a matrix."""
        return unscaled_of(self.x)


def unscaled_of(x: Masked) -> Bound:
    """Returns the bound of products of rows with a matrix, by the rows' own."""
    return x.source.bounds["first unscaled" if x.limit < FIRST_LAYER_LIMIT else "unscaled"]


def residual(x: Masked) -> Masked:
    """Declares rows [n, d] of the residual stream as what the bound of their `mean square` lets them be, in any layer.

    No number of a row exceeds sqrt(d) times its root mean square, and before it is centred by more than the mean. A sum
    of what all layers add would be another bound in each layer, of which each then has a recording of its own.
    """
    bounds = x.source.bounds
    largest = math.sqrt(x.shape[1] * bounds["mean square"].high) + bounds["mean"].limit
    return x.bounded(2.0 ** math.ceil(math.log2(largest)))


def to_norm(x: Masked, *, centre: bool) -> NormInput:
    """Prepares rows [n, d] for `normalise`; subtracts their mean if `centre`.

    Local, but it truncates the rows, so it belongs in the segment that opens them. 8 offline bytes, to the server, per
    number, per mean, and per number that has more than 16 fraction bits.

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
    wanted = unscaled_of(x).fraction_bits - ring.FRACTION_BITS
    return NormInput(x, truncate(x, _narrow_scale(d, wanted, bounds["mean square"].high)))


def _narrow_scale(d: int, wanted: int, largest: float) -> int:
    """The wanted fraction bits, or those next to them with which squares of d numbers fit `WindowedFunction`."""
    least = math.ceil((LOWEST - math.floor(math.log2(d * _LEAST))) / 2)
    most = (HIGHEST - math.ceil(math.log2(d * largest))) // 2
    return min(max(wanted, least), most)


def row_roots(rows: NormInput, eps: float) -> Program[Masked]:
    """Computes 1 / sqrt(mean square + eps) of each row of [n, d], [n], 36 fraction bits.

    2 rounds and that of `WindowedFunction.apply`, which a few rows do not need with `dcf`.

    Range: the bound of `mean square`. Error: relative 2^-12 where the mean square is above 2^-10. A row costs what
    `WindowedFunction.apply` does with w = 16 windows, and 16 online and 8 offline bytes, to the server. A wider range
    has a window more for each factor of four. The numbers that are squared then have a fraction bit less, so rows of a
    small mean square lose precision.
    """
    narrow, d = rows.narrow, rows.x.shape[1]
    largest = narrow.source.bounds["mean square"].high
    squares = yield from open_(
        multiply_bilinear(narrow, narrow, lambda a, b: (a * b).sum(1), 2.0 ** (HIGHEST - 2 * narrow.scale))
    )
    return (yield from open_((yield from _inverse_root(d, squares.scale, eps, largest).apply(squares))))


def normalise(rows: NormInput, eps: float) -> Program[Masked]:
    """Divides each row of [n, d] by sqrt(mean square + eps). 1 round and those of `row_roots`.

    Range: that of `row_roots`. Error: relative 2^-11 where the mean square is above 2^-10, from the 16 fraction bits
    of x. The inverse root itself has 26 fraction bits, split into a high and a low part to keep the truncation failures
    of both products rare. A row costs what `row_roots` does, and 16 d online and 32 d + 16 offline bytes, to the
    server.

    Raises:
        TruncationFailure: See `truncate`.
    """
    x, root = rows.x, (yield from row_roots(rows, eps))
    high = truncate(root, _HIGH_SCALE)
    low = digit(root, _ROOT_SCALE - _LOW_SCALE, _LOW_SCALE - _HIGH_SCALE)
    largest = math.sqrt(x.shape[1]) * 1.01
    parts = (multiply([x, high.reshape(-1, 1)], limit=largest + 1), multiply([x, low.reshape(-1, 1)]))
    opened = yield from parallel(*(open_(part) for part in parts))
    return (truncate(opened[0]) + truncate(opened[1])).bounded(largest)


def scaled_after(product: Masked, root: Masked, limit: float) -> Additive:
    """Multiplies rows [n, m], the product of narrow rows with a matrix, by their inverse roots: (s x) W = s (x W).

    The product is cut to the rows' own fraction bits, 13 or up to 16, and the inverse root, which is small where the
    product is large, to what makes 34 in all: their product fails to be truncated as rarely as that of two plain
    numbers.

    Error: that of a norm of rows that were cut to so many fraction bits, s times as much, and relative 2^-21 / s.
    8 (2 n m + n) offline bytes, to the server.

    Args:
        product: x W, of numbers within `NormInput.unscaled`.
        root: What `row_roots` computed.
        limit: Bound of the result.

    Raises:
        TruncationFailure: See `truncate`.
    """
    cut = truncate(product, product.scale - ring.FRACTION_BITS)
    return multiply([cut, truncate(root, SCALED_BITS - cut.scale).reshape(-1, 1)], limit=limit)
