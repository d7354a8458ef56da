"""Signs of masked values, by either comparison protocol.

With |x| < 2^k the sign is bit k of X - r, which is X_k ^ r_k ^ [X' < r'] with the low k bits X' and r' (as in Boyle et
al., EUROCRYPT 2021, section 4). It is exact and cannot fail as a truncation can.
"""

import torch
from torch import Tensor

from parties.decoding.program import Program
from parties.engines.fss.arithmetic.gates import arithmetic, xor_bits
from parties.engines.fss.arithmetic.values import Additive, Masked
from parties.engines.fss.compare import prefix
from parties.engines.fss.randomness import dcf, payload_dcf
from parties.engines.fss.randomness.source import CLIENT, DEALER, Bits, Source

LANE_BITS = 32


def negative(x: Masked) -> Program[Bits]:
    """Computes XOR shares of [x < 0], uint8, one bit per byte, in the shape of x; k follows from the declared bound.

    `dcf`: no round; 16 max(1, k - 6) offline bytes to each party and 1/8 more to the server, per element.
    `prefix`: ceil(log2 k) rounds, about 3k/8 online and 3k/8 offline bytes per element.

    Raises:
        ValueError: The declared bound is beyond the ring.
    """
    signs = yield from _signs(x.source, x.public.reshape(-1, 1), x.mask.reshape(-1), _checked_width(x))
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
    signs = yield from _signs(x.source, moved.public.reshape(-1, len(edges)), x.mask.reshape(-1), _checked_width(x))
    return signs.reshape(tuple(moved.shape))


def count_below(x: Masked, edges: Tensor, spare_bits: int = 0) -> Program[Additive]:
    """Counts, for each number, the public edges that it is below; additive, in the shape of x, 32 fraction bits.

    The integers are multiples of 2^32 because the keys' payloads have 32 bits: shares modulo 2^32, shifted up, are
    shares modulo 2^64. With the mask's bit rho = r_k and the public c = X_k the sign is c + (1 - 2c) q with
    q = rho + (1 - 2 rho) [X' < r'], so the payload is 1 - 2 rho.

    `dcf`: no round; per element the offline bytes of a `payload_dcf` key of one lane to each party, 20 (k - 2) + 16,
    and 8 to the server. `prefix`: the rounds and bytes of `below_edges`, and for each of its bits those of
    `gates.xor_bits` and `gates.arithmetic`: 1 round, 1/8 online byte and 8 offline bytes, to the server.

    Args:
        x: The numbers; their differences from the edges stay within the declared bound of x, too.
        edges: Public integers in units of 2^(spare_bits - scale), [edges].
        spare_bits: The integers of x are multiples of 2^spare_bits; with `dcf` k is so much less.

    Raises:
        ValueError: The declared bound is beyond the ring.
    """
    source, edges = x.source, edges << spare_bits
    if source.comparison != "dcf":
        bits = arithmetic(source, (yield from xor_bits(source, (yield from below_edges(x, edges)))))
        return bits.sum(-1).upscaled(LANE_BITS)
    width, mask = _checked_width(x) - spare_bits, x.mask.reshape(-1) >> spare_bits
    public = _differences(x, edges).public.reshape(-1, len(edges)) >> spare_bits
    rho = (mask >> width) & 1
    shared_rho = source.deal(mask.shape, lambda: rho).share
    found = _with_payload(source, public, mask, (1 - 2 * rho)[:, None], width)
    if source.rank == DEALER:
        count = source.placeholder(x.shape)
    else:
        above = (public >> width) & 1
        count = ((1 - 2 * above) * (shared_rho[:, None] + found[..., 0])).sum(-1)
        count = count + above.sum(-1) if source.rank == CLIENT else count
    return Additive(source, count.reshape(x.shape) << LANE_BITS, LANE_BITS, float(len(edges)))


def where_negative(x: Masked, y: Masked) -> Additive:
    """Computes [x < 0] y for each y [m, *x.shape], where all integers are multiples of 2^32; additive. No round; `dcf`.

    With y = Y - t and the sign c + (1 - 2c) q of `count_below`, the payloads are 1 - 2 rho and (1 - 2 rho) t, and the
    dealer shares rho and rho t. The low half of Y is that of t, and public. (Boyle et al., section 4, prepare the same
    for a ReLU.) Per element the offline bytes of a `payload_dcf` key of m + 1 lanes to each party, and 8 (m + 1) to the
    server.

    Args:
        x: The compared numbers; comparisons have k - 32 bits.
        y: The numbers that are chosen, m at most 3.

    Raises:
        ValueError: The declared bound is beyond the ring.
    """
    source, width = x.source, _checked_width(x) - LANE_BITS
    public, mask = (part.reshape(-1) >> LANE_BITS for part in (x.public, x.mask))
    chosen, masks = (part.reshape(len(y.public), -1) for part in (y.public, y.mask))
    rho = (mask >> width) & 1
    secrets = torch.cat([torch.ones_like(rho)[None], masks >> LANE_BITS])  # times the sign: itself, and the masks
    shares = source.deal(secrets.shape, lambda: rho * secrets).share
    beta = ((1 - 2 * rho) * secrets).transpose(0, 1).contiguous()
    found = _with_payload(source, public[:, None], mask, beta, width)[:, 0].transpose(0, 1)
    if source.rank == DEALER:
        share = source.placeholder(chosen.shape)
    else:
        above = (public >> width) & 1
        flipped = (1 - 2 * above) * (shares + found)
        low = chosen & ((1 << LANE_BITS) - 1)
        sign, own = flipped[0], -masks
        if source.rank == CLIENT:
            sign, own = sign + above, own + low
        share = ((sign * (chosen >> LANE_BITS) - flipped[1:]) << LANE_BITS) + above * own
    return Additive(source, share.reshape(y.shape), y.scale, y.limit)


def _with_payload(source: Source, public: Tensor, mask: Tensor, beta: Tensor, width: int) -> Tensor:
    """Computes shares of beta [X' < r'] modulo 2^32, from X [n, points], r [n] and beta [n, lanes]: [n, points, lanes].

    Only the dealer knows beta.
    """
    (count, points), lanes = public.shape, beta.shape[1]
    seeds = source.seeds(count)
    key = source.broadcast(
        (count * payload_dcf.key_bytes(width, lanes),),
        lambda: payload_dcf.generate(source.permutation, mask, beta, width, *seeds),
    )
    source.evaluated(count * points * (2 * payload_dcf.levels(width, lanes) + 1))
    if source.rank == DEALER:
        return source.placeholder((count, points, lanes))
    return payload_dcf.evaluate(source.permutation, source.rank, public, width, lanes, seeds[0], key)


def _differences(x: Masked, edges: Tensor) -> Masked:
    """Subtracts the edges, as integers, without a change of the declared bound: [*x.shape, edges]."""
    source = x.source
    source.note(edges)
    spread = x.rescaled(0).reshape(*x.shape, 1).expand(*x.shape, len(edges))
    public = spread.public if source.rank == DEALER else spread.public - edges.to(spread.public.device)
    return Masked(source, public, spread.mask, 0, spread.limit, x.epoch).bounded(spread.limit)


def _checked_width(x: Masked) -> int:
    """Returns the k of the declared bound, which both parties must agree on."""
    if x.bits > 63:
        raise ValueError(f"signs of numbers below 2^{x.bits}; the ring has room for 2^63; declare a smaller bound")
    x.source.note(x.bits)
    return x.bits


def _signs(source: Source, public: Tensor, mask: Tensor, width: int) -> Program[Bits]:
    """Computes XOR shares of the signs of X - r for several X [n, points] under each mask r [n]: [n, points]."""
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
        (dcf.key_blocks(width), count, 16), lambda: dcf.generate(source.permutation, mask, width, *seeds)
    )
    source.evaluated(count * points * dcf.key_blocks(width))
    if source.rank == DEALER:
        return public.new_zeros(public.shape, dtype=torch.uint8)
    return dcf.evaluate(source.permutation, source.rank, public, width, seeds[0], key)


def _by_prefix_tree(source: Source, public: Tensor, mask: Tensor, width: int) -> Program[Bits]:
    count, points = public.shape
    shared = source.deal_bits((count, width), lambda: _unpacked(mask, width)).repeat_interleave(points, 0)
    x = public.new_zeros(shared.shape, dtype=torch.uint8) if source.rank == DEALER else _unpacked(public, width)
    borrow = yield from prefix.less_than(source, x, shared)
    return borrow.reshape(count, points)


def _bit(x: Tensor, place: int) -> Bits:
    return ((x >> place) & 1).to(torch.uint8)


def _unpacked(x: Tensor, width: int) -> Bits:
    """Returns the lowest bits of all elements, lowest first, [n, width]."""
    return ((x.reshape(-1, 1) >> torch.arange(width, device=x.device)) & 1).to(torch.uint8)
