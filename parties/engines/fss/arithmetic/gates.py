"""The basic gates: opening, truncation, matrix products, conversion of bits.

Masked evaluation follows Turbospeedz (Ben-Efraim, Nielsen, Omri, ACNS 2019) and ABY2.0 (Patra, Schneider, Suresh,
Yalame, USENIX Security 2021), with a dealer as in Beaver (CRYPTO 1991): a value is opened once under its mask, and a
product of masked values is local work that gives additive shares.
"""

import math
from collections.abc import Callable

from torch import Tensor

from parties.decoding.program import Program
from parties.engines.fss.arithmetic import ring
from parties.engines.fss.arithmetic.opening import Opening, Pad
from parties.engines.fss.arithmetic.values import Additive, Masked
from parties.engines.fss.randomness import bit_packing
from parties.engines.fss.randomness.source import CLIENT, DEALER, Bits, Source
from parties.errors import PartyError


class TruncationFailure(Exception):  # noqa: N818 - the field's name for it
    """A masked number lies so close to +-2^63 that its truncation could be wrong; both computing parties see it.

    The message names the stage and what failed. The segment is run again with fresh randomness.
    """


class StaleMask(PartyError):  # noqa: N818 - named for what is wrong
    """A program truncates numbers that a retry would not mask afresh; every party detects it."""


def open_(x: Additive) -> Program[Masked]:
    """Turns additive shares into a masked value: 1 round, 8 online bytes per element, none offline.

    The sum of z and a uniform mask is uniform, whatever z is.
    """
    pad = Pad(x.source, x.shape)
    hidden = pad.dealt.client_share if x.source.rank == DEALER else pad.hide(x.share)
    (public,) = yield [Opening(hidden, x.source.meter.current, x.bits, pad.dealt.share)]
    return Masked(x.source, public, pad.dealt.share, x.scale, x.limit, x.source.epoch)


def xor_bits(source: Source, shares: Bits) -> Program[tuple[Bits, Bits]]:
    """Opens XOR-shared bits under fresh masks: 1 round, 1 online bit per bit.

    Args:
        source: This party's correlated randomness.
        shares: This party's shares, uint8, one bit per byte.

    Returns:
        The masked bits b ^ beta, public; and this party's share of the mask beta, at the dealer beta itself.
    """
    beta = source.random_bits(shares.shape)
    (packed,) = yield [Opening(bit_packing.pack(shares ^ beta), source.meter.current)]
    return bit_packing.unpack(packed, shares.shape), beta


def reveal_bits(source: Source, shares: Bits) -> Program[Bits]:
    """Opens XOR-shared bits to both parties: 1 round, 1 online bit per bit. Only for bits that can be simulated."""
    (packed,) = yield [Opening(bit_packing.pack(shares), source.meter.current)]
    return bit_packing.unpack(packed, shares.shape)


def truncate(x: Masked, scale: int = ring.FRACTION_BITS) -> Masked:
    """Drops fraction bits: no round, 8 offline bytes per element, to the server.

    y = (X >> t) - (r >> t) is off by less than one unit in the last place, without bias since X is uniform. It is wrong
    only if x + r wrapped around +-2^63. With |x| < 2^k that requires |X| >= 2^63 - 2^k, which client and server see. To
    them it reveals nothing about x, since X is uniform. To the dealer, who knows r and learns of the retry, it is a
    comparison of x with a number that it knows: total variation |x - x'| / 2^63 between x and x' (docs/protocols.md).
    (SecureML, Mohassel, Zhang, IEEE S&P 2017, truncates shares locally and fails silently.)

    After a failure the whole segment is run again with fresh randomness. Opening just the element again would leak:
    what was dealt for the following steps depends on the mask r >> t, so y would have to be opened under that mask, and
    together with the public X it would show whether x + r wrapped, a comparison of x with a known number.

    Args:
        x: The masked value.
        scale: Fraction bits to keep; a value with fewer is scaled up instead.

    Raises:
        TruncationFailure: An element failed, each with probability 2^(k - 63); nothing wrong was computed.
        ValueError: The declared bound is beyond 2^62, where a wrap could not be seen.
        StaleMask: x was opened in an earlier epoch, so that a retry would have the same X and fail again.
    """
    drop = x.scale - scale
    if drop <= 0:
        return x.upscaled(scale)
    source = x.source
    if x.bits > 62:
        raise ValueError(f"numbers below 2^{x.bits} are truncated; beyond 2^62 a wrap would not be seen")
    if x.epoch != source.epoch and x.public.numel():
        raise StaleMask(
            f"stage {source.meter.current}: numbers {tuple(x.shape)} that were opened in epoch {x.epoch} are truncated "
            f"in epoch {source.epoch}, where no retry would change them; truncate them in the segment that opens them"
        )
    source.retries.risk(math.prod(x.shape), 2.0 ** (x.bits - 63))
    if source.rank == DEALER:
        cut = source.deal(x.shape, lambda: x.mask >> drop)
        return Masked(source, cut.client_share, cut.share, scale, x.limit, x.epoch)
    public = _shifted(x, drop)
    return Masked(source, public, source.deal(x.shape, _never).share, scale, x.limit, x.epoch)


def _shifted(x: Masked, drop: int) -> Tensor:
    """Returns X >> drop at a computing party, after the check of `truncate`."""
    source, count, where = x.source, x.public.numel(), x.source.meter.current
    source.note(x.bits)
    if not count:
        return x.public
    outside = source.flag()
    public = ring.checked_shift(x.public, drop, 2**63 - 2**x.bits, outside)
    size = f"{count:,} numbers below 2^{x.bits}"
    source.refuse(outside, lambda: TruncationFailure(f"stage {where}, where {size} are truncated"))
    return public


def matmul(x: Masked, y: Masked, limit: float | None = None) -> Additive:
    """Batched matrix product [..., a, b] @ [..., b, c]: no round, 8 offline bytes per output, to the server.

    z_0 = (X - r_0) Y - X s_0 + c_0 and z_1 = -r_1 Y - X s_1 + c_1 with masks r, s and c = r s (ABY2.0, section 3.1).

    Args:
        x: The left operand.
        y: The right operand.
        limit: Bound of the result; by default the one that follows from the operands' bounds.
    """
    return multiply_bilinear(x, y, ring.matmul, limit or x.limit * y.limit * x.shape[-1])


def multiply_bilinear(x: Masked, y: Masked, product: Callable[[Tensor, Tensor], Tensor], limit: float) -> Additive:
    """Any bilinear function `product` of two masked values, at the cost of `matmul`; `limit` bounds the result."""
    source, scale = x.source, x.scale + y.scale
    if source.rank == DEALER:
        dealt = product(x.mask, y.mask)
        source.deal(dealt.shape, lambda: dealt)
        return Additive(source, source.placeholder(dealt.shape), scale, limit)
    own = x.public - x.mask if source.rank == CLIENT else -x.mask
    share = product(own, y.public) - product(x.public, y.mask)
    return Additive(source, share + source.deal(share.shape, _never).share, scale, limit)


def arithmetic(source: Source, bit: tuple[Bits, Bits]) -> Additive:
    """Additive shares of 0 or 1 from masked bits of `xor_bits`: no round, 8 offline bytes per bit, to the server."""
    masked, beta = bit
    mask = source.deal(masked.shape, beta.long).share
    public = masked.long()
    if source.rank == DEALER:
        share = source.placeholder(masked.shape)
    else:
        share = (public if source.rank == CLIENT else 0) + (1 - 2 * public) * mask
    return Additive(source, share, 0, 1.0 + 2.0**-ring.FRACTION_BITS)


def _never() -> Tensor:
    raise AssertionError("only the dealer evaluates a secret")
