"""Maximum, argmax and pairwise comparisons of masked values."""

import torch

from parties.decoding.program import Program
from parties.engines.fss.arithmetic.gates import open_, xor_bits
from parties.engines.fss.arithmetic.multiplication import select
from parties.engines.fss.arithmetic.values import Additive, Masked, cat
from parties.engines.fss.compare.signs import LANE_BITS, negative, where_negative
from parties.engines.fss.randomness.source import DEALER, Bits


def elementwise_maximum(x: Masked, y: Masked) -> Program[Masked]:
    """Computes the elementwise maximum x + [x < y] (y - x), exactly. 2 rounds and those of a sign.

    Per element 8 1/8 online bytes, a sign, and 16 offline bytes, to the server.
    """
    scale = max(x.scale, y.scale)
    x, y = x.upscaled(scale), y.upscaled(scale)
    gap = y - x
    bits = yield from xor_bits(x.source, (yield from negative(-gap)))
    better = select(bits, [[gap]])
    limit = max(x.limit, y.limit)
    return (yield from open_((x.additive() + better).bounded(limit)))


def argmax(x: Masked) -> Program[Additive]:
    """Computes the index of the largest of x [..., n], the lower one among equals: [...], scale 0 or 32. Exact.

    A tournament that carries the index: n - 1 matches in ceil(log2 n) levels. `dcf`: 1 round per level; per match 16
    online bytes and what `where_negative` takes for 2 numbers. `prefix`: 2 rounds per level and those of a sign; per
    match 16 1/8 online bytes, a sign, and 24 offline bytes, to the server.

    Args:
        x: The numbers; with `dcf` integers of at most 30 bits, which are carried in the upper half of the ring.
    """
    source, n = x.source, x.shape[-1]
    places = torch.arange(n, dtype=torch.int64, device=source.device).expand(x.shape)
    zeros = torch.zeros_like(places)
    index = Masked(source, zeros if source.rank == DEALER else places, zeros, 0, float(n), Masked.CONSTANT)
    if source.comparison == "dcf":
        x, index = (value.upscaled(value.scale + LANE_BITS) for value in (x, index))
    while (n := x.shape[-1]) > 1:
        even, odd, rest = ((..., part) for part in (slice(0, n - 1, 2), slice(1, n, 2), slice(n - n % 2, n)))
        gap, ahead = x[odd] - x[even], index[odd] - index[even]
        first = Additive(source, torch.stack([x[even].additive().share, index[even].additive().share]), 0, 1.0)
        limit = max(gap.limit * 2.0**gap.scale, ahead.limit * 2.0**ahead.scale)
        public, mask = torch.stack([gap.public, ahead.public]), torch.stack([gap.mask, ahead.mask])
        steps = Masked(source, public, mask, 0, limit, gap.epoch)
        if source.comparison == "dcf":
            chosen = where_negative(-gap, steps)
        else:
            chosen = select((yield from xor_bits(source, (yield from negative(-gap)))), [[steps]])
        opened = yield from open_((first + chosen).bounded(limit))
        x = cat([opened[0].rescaled(x.scale).bounded(x.limit), x[rest]], -1)
        index = cat([opened[1].rescaled(index.scale).bounded(index.limit), index[rest]], -1)
    return index.additive()[..., 0]


def compare_pairs(x: Masked) -> Program[Bits]:
    """Computes XOR shares of [x_i < x_j] for all i < j of the last axis of x [..., n]: [..., n (n - 1) / 2]."""
    n = x.shape[-1]
    first, second = torch.triu_indices(n, n, offset=1)
    return (yield from negative(x[..., first] - x[..., second]))
