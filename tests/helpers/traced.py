"""Functions of two tensors whose operations recordings replay."""

from collections.abc import Callable

import torch
from torch import Tensor

from parties.engines.fss.arithmetic import ring
from parties.engines.fss.randomness import bit_packing
from tests.helpers.fused import FUSED

Function = Callable[[Tensor, Tensor], list[Tensor]]


def elementwise(x: Tensor, y: Tensor) -> list[Tensor]:
    least, largest = torch.aminmax(x)
    rows = torch.cat([x - y, (x * y) >> 3], 1)
    chosen = torch.where(x < y, x, 7)
    return [(least < -5) | (largest >= 5), rows, rows.transpose(0, 1).contiguous() & 255, chosen, -x ^ y, x.abs() << 2]


def reductions(x: Tensor, y: Tensor) -> list[Tensor]:
    small = (x < y).to(torch.uint8)
    return [
        x.sum(0),
        x.sum(1),
        (x * y).sum(),
        x.amax(1),
        y.amin(0),
        (x < y).any(1),
        (x < y).all(),
        small.sum(0),
        x.cumsum(1),
        small.cumsum(1),
    ]


def indices(x: Tensor, y: Tensor) -> list[Tensor]:
    places = y[0] % x.shape[1]
    counts = torch.zeros(16, dtype=torch.int64, device=x.device).scatter_add(0, places & 15, y[0])
    return [
        x[:, places],
        x[places[:2] % 2, places[:2]],
        x[[1, 0]][:, [2, -1]],
        x.gather(1, places.expand_as(x)),
        counts,
        x.argsort(1),
    ]


def bits(x: Tensor, y: Tensor) -> list[Tensor]:
    packed = bit_packing.pack((x < y).to(torch.uint8))
    return [packed, bit_packing.unpack(packed, x.shape) ^ 1]


def products(x: Tensor, y: Tensor) -> list[Tensor]:
    return [ring.vector_matrix(x[:1], y), ring.vector_matrix(x, y), ring.matmul(x[None], y.transpose(0, 1)[None])]


def fused(x: Tensor, y: Tensor) -> list[Tensor]:
    flag = torch.zeros(1, dtype=torch.bool, device=x.device)
    shifted = ring.checked_shift(x + y, 9, 2**63 - 2**30, flag)
    return [shifted, flag, *(both(x, y, x ^ 5) for both in FUSED.values())]
