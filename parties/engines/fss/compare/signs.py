"""Signs of masked values, by either comparison protocol.

With |x| < 2^k the sign is bit k of X - r, which is X_k ^ r_k ^ [X' < r'] with the low k bits X' and r' (as in Boyle et
al., EUROCRYPT 2021, section 4). It is exact and cannot fail as a truncation can.
"""

import numpy as np
import torch

from parties.decoding.program import Program
from parties.engines.fss.arithmetic import ring
from parties.engines.fss.arithmetic.values import Masked
from parties.engines.fss.compare import prefix
from parties.engines.fss.randomness import dcf
from parties.engines.fss.randomness.source import CLIENT, DEALER, Bits, Source


def negative(x: Masked) -> Program[Bits]:
    """Computes XOR shares of [x < 0], uint8, one bit per byte, in the shape of x; k follows from the declared bound.

    `dcf`: no round; 16 max(1, k - 6) offline bytes to each party and 1/8 more to the server, per element.
    `prefix`: ceil(log2 k) rounds, about 3k/8 online and 3k/8 offline bytes per element.

    Raises:
        ValueError: The declared bound is beyond the ring.
    """
    source, width = x.source, x.bits
    if width > 63:
        raise ValueError(f"signs of numbers below 2^{width}; the ring has room for 2^63; declare a smaller bound")
    source.note(width)
    flat, mask = x.public.reshape(-1), x.mask.reshape(-1)
    top = source.deal_bits(flat.shape, lambda: _bit(mask, width))
    if source.comparison == "dcf":
        borrow = _by_dcf(source, flat, mask, width)
    else:
        borrow = yield from _by_prefix_tree(source, flat, mask, width)
    sign = borrow ^ top
    if source.rank == CLIENT:
        sign = sign ^ _bit(flat, width)
    return sign.reshape(tuple(x.shape))


def _by_dcf(source: Source, public: torch.Tensor, mask: torch.Tensor, width: int) -> Bits:
    count = public.numel()
    seeds = source.seeds(count)
    key = source.broadcast(
        (dcf.key_blocks(width), count, 16),
        lambda: torch.from_numpy(
            dcf.generate(source.permutation, _words(mask, width), width, *(own.numpy() for own in seeds))
        ),
    )
    if source.rank == DEALER:
        return public.new_zeros(count, dtype=torch.uint8)
    if public.is_cuda:
        return dcf.evaluate_on(source.permutation, source.rank, ring.low_bits(public, 0, width), width, seeds[0], key)
    words, own = _words(public, width), seeds[0].numpy()
    return torch.from_numpy(dcf.evaluate(source.permutation, source.rank, words, width, own, key.numpy()))


def _by_prefix_tree(source: Source, public: torch.Tensor, mask: torch.Tensor, width: int) -> Program[Bits]:
    shape = (public.numel(), width)
    shared = source.deal_bits(shape, lambda: _unpacked(mask, width))
    x = public.new_zeros(shape, dtype=torch.uint8) if source.rank == DEALER else _unpacked(public, width)
    return (yield from prefix.less_than(source, x, shared))


def _words(x: torch.Tensor, width: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint64]]":
    return ring.low_bits(x, 0, width).contiguous().numpy().view(np.uint64)


def _bit(x: torch.Tensor, place: int) -> Bits:
    return ((x >> place) & 1).to(torch.uint8)


def _unpacked(x: torch.Tensor, width: int) -> Bits:
    """Returns the bits of [n], lowest first, [n, width]."""
    return ((x.unsqueeze(1) >> torch.arange(width, device=x.device)) & 1).to(torch.uint8)
