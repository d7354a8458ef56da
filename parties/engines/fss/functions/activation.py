"""SiLU, GELU and soft caps: one table over the declared range with a first-order correction. Two rounds."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from parties.decoding.program import Program
from parties.engines.fss.arithmetic import ring
from parties.engines.fss.arithmetic.gates import open_, truncate
from parties.engines.fss.arithmetic.multiplication import sum_of_products
from parties.engines.fss.arithmetic.values import Masked
from parties.engines.fss.bounds import ACTIVATION, CAPPED
from parties.engines.fss.functions.tables import Tables, digit, look_up
from parties.engines.plain import ACTIVATIONS

_WIDTH = 11
_SCALE, _SLOPE_SCALE = 30, 14


@dataclass(frozen=True)
class _Tabulated:
    """A function over the 2^11 cells of a symmetric range.

    Attributes:
        tables: The function and its slope at the cells' left ends; the upper half of the table is negative numbers.
        cell_bits: A cell is 2^-cell_bits wide.
        limit: Bound of the result.
    """

    tables: Tables
    cell_bits: int
    limit: float

    @classmethod
    def of(cls, function: Callable[[Tensor], Tensor], range_: float, limit: float) -> "_Tabulated":
        """Tabulates a function over (-range_, range_), a power of two."""
        cell_bits = _WIDTH - 1 - round(math.log2(range_))
        places = np.arange(1 << _WIDTH)
        signed = np.where(places < places.size // 2, places, places - places.size) / 2.0**cell_bits
        cells = torch.tensor(signed, requires_grad=True)
        values = function(cells)
        (slope,) = torch.autograd.grad(values.sum(), cells)
        rows = [ring.encode(values.detach(), _SCALE), ring.encode(slope, _SLOPE_SCALE)]
        return cls(Tables(torch.stack(rows).unsqueeze(1).numpy()), cell_bits, limit)

    def apply(self, x: Masked) -> Program[Masked]:
        """The function, elementwise: 2 rounds; see `activation`."""
        x = truncate(x)
        start = ring.FRACTION_BITS - self.cell_bits
        found = look_up(x.source, x.public, x.mask, start, self.tables)
        rest = digit(x, 0, start)
        opened = yield from open_(found.signed)
        value = sum_of_products([[opened[0]], [opened[1], rest.rescaled(0)]], found.sign).rescaled(_SCALE)
        return truncate((yield from open_(value.bounded(self.limit))))


@cache
def _activation(kind: str) -> _Tabulated:
    return _Tabulated.of(ACTIVATIONS[kind], ACTIVATION.limit, ACTIVATION.limit)


@cache
def _cap(cap: float) -> _Tabulated:
    return _Tabulated.of(lambda x: cap * torch.tanh(x / cap), CAPPED.limit, 2.0 ** (math.floor(math.log2(cap)) + 1))


def activation(x: Masked, kind: str) -> Program[Masked]:
    """Computes `silu`, `gelu` or `gelu_tanh`, elementwise.

    Range: `bounds.ACTIVATION`. Error: at most 1.5e-3, 2e-4 in the mean square near zero, less elsewhere. 2 rounds; per
    element 24 online bytes each way and 312 offline bytes, to the server, 8 more if x has more than 16 fraction bits.

    Raises:
        TruncationFailure: See `truncate`.
    """
    return _activation(kind).apply(x)


def soft_cap(x: Masked, cap: float) -> Program[Masked]:
    """Computes cap tanh(x / cap), elementwise.

    Range: `bounds.CAPPED`. Error: at most 0.025 / cap, and 1e-3 for the 16 fraction bits of x. Costs what `activation`
    does.

    Raises:
        TruncationFailure: See `truncate`.
    """
    return _cap(cap).apply(x)
