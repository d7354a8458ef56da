"""Rotary positions (RoFormer, arXiv 2104.09864, half-split layout) on an engine."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from parties.engines.base import Engine
from parties.models.rope import Rope


@lru_cache(maxsize=4)
def _turns(rope: Rope, first: int, count: int, length: int | None) -> tuple[Tensor, Tensor]:
    """Cosines and sines of positions first .. first + count - 1, [count, dims]; those of a token serve all its layers.

    Args:
        rope: The rotary positions.
        first: The first position.
        count: Number of positions.
        length: Tokens of the sequence; None if each position is the last one of a sequence of its own.
    """
    if length is None:
        each = [rope.angles(torch.tensor([float(last)]).double(), last + 1) for last in range(first, first + count)]
        angles = torch.cat(each)
    else:
        angles = rope.angles(torch.arange(first, first + count, dtype=torch.float64), length)
    return angles.cos() * rope.scale, angles.sin() * rope.scale


def rotated(engine: Engine, x: Any, rope: Rope, position: int, length: int | None) -> Any:
    """Queries or keys, [heads, n, head_dim], turned by public angles.

    Args:
        engine: The engine.
        x: The values, without positions.
        rope: The rotary positions.
        position: Position of the first of the n tokens.
        length: Tokens of the sequence; None if each token is the last one of a sequence of its own.
    """
    half, (_, count, width) = rope.dims // 2, x.shape

    def turns(later: int) -> tuple[Tensor, Tensor]:
        return _turns(rope, position + later, count, None if length is None else length + later)

    cos = engine.varying(lambda later: turns(later)[0], rope.scale)
    sin = engine.varying(lambda later: turns(later)[1], rope.scale)
    turned = x[:, :, : rope.dims]
    swapped = engine.cat([-turned[:, :, half:], turned[:, :, :half]], dim=2)
    turned = turned * cos + swapped * sin
    return turned if rope.dims == width else engine.cat([turned, x[:, :, rope.dims :]], dim=2)
