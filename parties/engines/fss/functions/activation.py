"""SiLU, GELU and soft caps: one table over the declared range with a first-order correction. Two rounds."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from parties.decoding.program import Program
from parties.engines.fss.arithmetic import ring
from parties.engines.fss.arithmetic.gates import open_, truncate
from parties.engines.fss.arithmetic.values import Masked
from parties.engines.fss.bounds import ACTIVATION_CELL, CAPPED
from parties.engines.fss.functions.first_order import FirstOrder
from parties.engines.fss.functions.tables import Tables
from parties.engines.plain import ACTIVATIONS

_CELL_BITS = round(-math.log2(ACTIVATION_CELL))
_CAP_CELL_BITS = 2  # of a cap, whose range is wider
_SCALE = 30
# A product of 32 fraction bits, as of two plain numbers, is truncated as rarely: 20 of the function, 12 of the factor.
_GATE_SCALE, _GATE_REST, _FACTOR_SCALE = 20, 13, 12


def _tabulated(
    function: Callable[[Tensor], Tensor], limit: float, cell_bits: int, rest_scale: int, scale: int
) -> FirstOrder:
    """Tabulates a function and its slope at the cells' left ends; the upper half of the table is negative numbers."""
    places = np.arange(round(2 * limit * 2**cell_bits))
    signed = np.where(places < places.size // 2, places, places - places.size) / 2.0**cell_bits
    cells = torch.tensor(signed, requires_grad=True)
    values = function(cells)
    (slope,) = torch.autograd.grad(values.sum(), cells)
    rows = [ring.encode(values.detach(), scale), ring.encode(slope, scale - rest_scale)]
    return FirstOrder(Tables(torch.stack(rows).unsqueeze(1).numpy()), cell_bits, rest_scale, scale)


@cache
def _function(kind: str, rest_scale: int, scale: int, limit: float) -> FirstOrder:
    return _tabulated(ACTIVATIONS[kind], limit, _CELL_BITS, rest_scale, scale)


@cache
def _cap(cap: float) -> FirstOrder:
    return _tabulated(lambda x: cap * torch.tanh(x / cap), CAPPED.limit, _CAP_CELL_BITS, ring.FRACTION_BITS, _SCALE)


def activation(x: Masked, kind: str) -> Program[Masked]:
    """Computes `silu`, `gelu` or `gelu_tanh`, elementwise.

    Range: the bound of `activation`. Error: at most 1.5e-3, 2e-4 in the mean square near zero, less elsewhere. 2
    rounds; per element 24 online bytes each way and 312 offline bytes, to the server, 8 more if x has more than 16
    fraction bits. Of the offline bytes 256 are for a range of 64, and in proportion for a wider one.

    Raises:
        TruncationFailure: See `truncate`.
    """
    limit = x.source.bounds["activation"].limit
    found = yield from _function(kind, ring.FRACTION_BITS, _SCALE, limit).look_up(truncate(x))
    return truncate((yield from open_(found.times(limit=limit))))


def gated_activation(gate: Masked, x: Masked, kind: str) -> Program[Masked]:
    """Computes `silu`, `gelu` or `gelu_tanh` of a gate, times x, elementwise. 2 rounds.

    Range: the bounds of `activation` for the gate, of `product` for the result. Error: |x| times that of `activation`,
    and |activation| 2^-12. Per element 24 online bytes each way and 360 offline bytes, to the server, 8 more if the
    gate has more than 16 fraction bits.

    Raises:
        TruncationFailure: See `truncate`.
    """
    bounds = x.source.bounds
    found = yield from _function(kind, _GATE_REST, _GATE_SCALE, bounds["activation"].limit).look_up(truncate(gate))
    product = found.times(truncate(x, _FACTOR_SCALE), limit=bounds["product"].limit)
    return truncate((yield from open_(product)))


def soft_cap(x: Masked, cap: float) -> Program[Masked]:
    """Computes cap tanh(x / cap), elementwise.

    Range: `bounds.CAPPED`. Error: at most 0.025 / cap, and 1e-3 for the 16 fraction bits of x. Costs what `activation`
    does.

    Raises:
        TruncationFailure: See `truncate`.
    """
    found = yield from _cap(cap).look_up(truncate(x))
    limit = min(CAPPED.limit, 2.0 ** (math.floor(math.log2(cap)) + 1))
    return truncate((yield from open_(found.times(limit=limit))))
