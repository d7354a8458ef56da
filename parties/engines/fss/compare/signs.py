"""Signs of masked values, by either comparison protocol.

With |x| < 2^k the sign is bit k of X - r, which is X_k ^ r_k ^ [X' < r'] with the low k bits X' and r' (as in Boyle et
al., EUROCRYPT 2021, section 4). It is exact and cannot fail as a truncation can.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from parties.decoding.program import Program
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
    signs = yield from _signs(x.source, x.public.reshape(-1, 1), x.mask.reshape(-1), x.bits)
    return signs.reshape(tuple(x.shape))


def below_edges(x: Masked, edges: Tensor) -> Program[Bits]:
    """Computes XOR shares of [x < e] for each public edge e: uint8, [*x.shape, edges]; k is as for `negative`.

    All edges share the mask of x, and so its key: with `dcf` the offline bytes of one sign per element, and 7/8 of a
    byte less to the server than `negative` of all differences takes for 8 of them. `prefix` deals the bits of r once.

    Args:
        x: The numbers; their differences from the edges stay within the declared bound of x, too.
        edges: Public integers in units of 2^-scale, [edges].

    Raises:
        ValueError: The declared bound is beyond the ring.
    """
    moved = _differences(x, edges)
    signs = yield from _signs(x.source, moved.public.reshape(-1, len(edges)), x.mask.reshape(-1), x.bits)
    return signs.reshape(tuple(moved.shape))


def _differences(x: Masked, edges: Tensor) -> Masked:
    """Subtracts the edges, as integers, without a change of the declared bound: [*x.shape, edges]."""
    integers = x.rescaled(0)
    spread = integers.reshape(*x.shape, 1).expand(*x.shape, len(edges))
    return spread.plus(-edges.double()).bounded(integers.limit)


def _signs(source: Source, public: Tensor, mask: Tensor, width: int) -> Program[Bits]:
    """Computes XOR shares of the signs of X - r for several X [n, points] under each mask r [n]: [n, points]."""
    if width > 63:
        raise ValueError(f"signs of numbers below 2^{width}; the ring has room for 2^63; declare a smaller bound")
    source.note(width)
    top = source.deal_bits(mask.shape, lambda: _bit(mask, width))
    if source.comparison == "dcf":
        borrow = _by_dcf(source, public, mask, width)
    else:
        borrow = yield from _by_prefix_tree(source, public, mask, width)
    sign = borrow ^ top[:, None]
    return sign ^ _bit(public, width) if source.rank == CLIENT else sign


def _by_dcf(source: Source, public: Tensor, mask: Tensor, width: int) -> Bits:
    count, points = public.shape
    seeds = source.seeds(count)
    key = source.broadcast(
        (dcf.key_blocks(width), count, 16),
        lambda: dcf.generate(source.permutation, _words(mask), width, *seeds),
    )
    source.evaluated(count * points * dcf.key_blocks(width))
    if source.rank == DEALER:
        return np.zeros((count, points), dtype=np.uint8)
    if public.is_cuda:
        return dcf.evaluate_on(source.permutation, source.rank, public, width, seeds[0], key)
    return dcf.evaluate(source.permutation, source.rank, _words(public), width, seeds[0], key)


def _by_prefix_tree(source: Source, public: Tensor, mask: Tensor, width: int) -> Program[Bits]:
    count, points = public.shape
    shared = np.repeat(source.deal_bits((count, width), lambda: _unpacked(mask, width)), points, axis=0)
    x = np.zeros(shared.shape, dtype=np.uint8) if source.rank == DEALER else _unpacked(public, width)
    borrow = yield from prefix.less_than(source, x, shared)
    return borrow.reshape(count, points)


def _words(x: Tensor) -> NDArray[np.uint64]:
    return x.contiguous().numpy().view(np.uint64)


def _bit(x: Tensor, place: int) -> Bits:
    return ((x >> place) & 1).cpu().numpy().astype(np.uint8)


def _unpacked(x: Tensor, width: int) -> Bits:
    """Returns the lowest bits of all elements, lowest first, [n, width]."""
    octets = x.cpu().contiguous().numpy().view(np.uint8).reshape(-1, 8)
    return np.unpackbits(octets, axis=1, bitorder="little", count=width)
