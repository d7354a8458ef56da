"""Maximum, argmax and pairwise comparisons of masked values."""

import torch

from parties.decoding.program import Program
from parties.engines.fss.arithmetic.gates import open_, xor_bits
from parties.engines.fss.arithmetic.multiplication import select
from parties.engines.fss.arithmetic.values import Additive, Masked, cat
from parties.engines.fss.compare.signs import negative
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
    """Computes the index of the largest of x [n], the lower one among equals; additive, scale 0. Exact.

    A tournament that carries the index: n - 1 matches, each of 16 1/8 online bytes, a sign, and 24 offline bytes, to
    the server; ceil(log2 n) levels of 2 rounds and those of a sign.
    """
    n = x.shape[0]
    source = x.source
    places = torch.arange(n, dtype=torch.int64, device=source.device)
    zeros = torch.zeros_like(places)
    index = Masked(source, zeros if source.rank == DEALER else places, zeros, 0, float(n), Masked.CONSTANT)
    while (n := x.shape[0]) > 1:
        half = n // 2
        even, odd = (slice(start, 2 * half, 2) for start in (0, 1))
        rest = slice(2 * half, n)
        gap = x[odd] - x[even]
        bits = yield from xor_bits(source, (yield from negative(-gap)))
        steps = torch.stack([gap.public, (index[odd] - index[even]).public])
        masks = torch.stack([gap.mask, (index[odd] - index[even]).mask])
        both = Masked(source, steps, masks, 0, 2.0**40, gap.epoch)
        first = torch.stack([x[even].additive().share, index[even].additive().share])
        larger = Additive(source, first, 0, 2.0**40) + select(bits, [[both]])
        opened = yield from open_(larger)
        x = cat([opened[0].rescaled(x.scale).bounded(x.limit), x[rest]], 0)
        index = cat([opened[1].bounded(index.limit), index[rest]], 0)
    return index.additive()[0]


def compare_pairs(x: Masked) -> Program[Bits]:
    """Computes XOR shares of [x_i < x_j] for all i < j of the last axis of x [..., n]: [..., n (n - 1) / 2]."""
    n = x.shape[-1]
    first, second = torch.triu_indices(n, n, offset=1)
    return (yield from negative(x[..., first] - x[..., second]))
