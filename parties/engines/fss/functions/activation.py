"""SiLU and GELU: one table over the declared range with a first-order correction. Two rounds."""

import math
from functools import cache

import numpy as np
import torch

from parties.decoding.program import Program
from parties.engines.fss.arithmetic import ring
from parties.engines.fss.arithmetic.gates import open_, truncate
from parties.engines.fss.arithmetic.multiplication import sum_of_products
from parties.engines.fss.arithmetic.values import Masked
from parties.engines.fss.bounds import ACTIVATION_CELL
from parties.engines.fss.functions.tables import Tables, digit, look_up
from parties.engines.plain import ACTIVATIONS

_CELL_BITS = round(-math.log2(ACTIVATION_CELL))
_SCALE, _SLOPE_SCALE = 30, 14


@cache
def _tables(kind: str, limit: float) -> Tables:
    """Tabulates the function and its slope at the cells' left ends; the upper half of the table is negative numbers."""
    places = np.arange(round(2 * limit / ACTIVATION_CELL))
    signed = np.where(places < places.size // 2, places, places - places.size) / 2.0**_CELL_BITS
    cells = torch.tensor(signed, requires_grad=True)
    function = ACTIVATIONS[kind](cells)
    (slope,) = torch.autograd.grad(function.sum(), cells)
    rows = [ring.encode(function.detach(), _SCALE), ring.encode(slope, _SLOPE_SCALE)]
    return Tables(torch.stack(rows).unsqueeze(1).numpy())


def activation(x: Masked, kind: str) -> Program[Masked]:
    """Computes `silu`, `gelu` or `gelu_tanh`, elementwise.

    Range: the bound of `activation`. Error: at most 1.5e-3, 2e-4 in the mean square near zero, less elsewhere. 2
    rounds; per element 24 online bytes each way and 312 offline bytes, to the server, 8 more if x has more than 16
    fraction bits. Of the offline bytes 256 are for a range of 64, and in proportion for a wider one.

    Raises:
        TruncationFailure: See `truncate`.
    """
    x, limit = truncate(x), x.source.bounds["activation"].limit
    start = ring.FRACTION_BITS - _CELL_BITS
    found = look_up(x.source, x.public, x.mask, start, _tables(kind, limit))
    rest = digit(x, 0, start)
    opened = yield from open_(found.signed)
    value = sum_of_products([[opened[0]], [opened[1], rest.rescaled(0)]], found.sign).rescaled(_SCALE)
    return truncate((yield from open_(value.bounded(limit))))
