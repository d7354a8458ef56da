"""The gates that everything is built of: opening, truncation, products, products with the server's matrices.

Masked evaluation follows Turbospeedz (Ben-Efraim, Nielsen, Omri, ACNS 2019) and ABY2.0 (Patra, Schneider, Suresh,
Yalame, USENIX Security 2021), with a dealer as in Beaver (CRYPTO 1991): a value is opened once under its mask, and a
product of opened values is local work on additive shares.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from parties.decoding.program import Program
from parties.engines.fss.arithmetic import ring
from parties.engines.fss.arithmetic.opening import Opening, Pad
from parties.engines.fss.arithmetic.values import Additive, Masked
from parties.engines.fss.randomness.source import CLIENT, DEALER, Bits, Source
from parties.errors import PartyError


class DangerZone(Exception):  # noqa: N818 - a place, not a fault
    """An opened number lies so close to +-2^63 that cutting it could be wrong: both computing parties see it.

    Its text says what failed, and in which stage.
    """


class StaleMask(PartyError):  # noqa: N818 - named for what is wrong
    """A truncation of numbers that no retry would mask anew: a fault of the program, found at every party alike."""


def open_(x: Additive) -> Program[Masked]:
    """Turns additive shares into a masked value: 1 round, 8 online bytes an element, none offline.

    The sum of z and a uniform mask is uniform, whatever z is.
    """
    pad = Pad(x.source, x.shape)
    hidden = pad.dealt.first if x.source.rank == DEALER else pad.hide(x.share)
    (public,) = yield [Opening(hidden, x.source.meter.current, x.bits, pad.dealt.share)]
    return Masked(x.source, public, pad.dealt.share, x.scale, x.limit, x.source.epoch)


def xor_bits(source: Source, shares: Bits) -> Program[tuple[Bits, Bits]]:
    """Opens XOR-shared bits under fresh masks: 1 round, 1 bit each.

    Args:
        source: correlated randomness.
        shares: this party's shares, one bit a byte.

    Returns:
        The masked bits b ^ beta, public, and the mask beta: a party's share of it, at the dealer itself.
    """
    beta = source.random_bits(shares.shape)
    (packed,) = yield [Opening(np.packbits(shares ^ beta), source.meter.current)]
    return np.unpackbits(packed, count=shares.size).reshape(shares.shape), beta


def reveal_bits(source: Source, shares: Bits) -> Program[Bits]:
    """Opens XOR-shared bits for everyone to see: 1 round, 1 bit each. Only for bits that say nothing."""
    (packed,) = yield [Opening(np.packbits(shares), source.meter.current)]
    return np.unpackbits(packed, count=shares.size).reshape(shares.shape)


def truncate(x: Masked, scale: int = ring.FRACTION_BITS) -> Masked:
    """Drops fraction bits: no round, 8 offline bytes an element, to the server.

    y = (X >> t) - (r >> t), off by less than one unit in the last place, and without bias since X is uniform. It is
    wrong only if x + r crossed +-2^63. With |x| < 2^k that needs |X| >= 2^63 - 2^k, which client and server see, and
    which says nothing about x to them: X is uniform. To the dealer, who knows r and is told of the retry, it is a
    comparison of x with a number it knows; total variation |x - x'| / 2^63 between x and x' (docs/protocols.md).
    (Mohassel, Zhang, SecureML, IEEE S&P 2017, truncate shares locally and fail unseen.)

    Who meets the zone starts its piece of the token again with fresh material. To open just the element again would not
    do: what the dealer dealt for the steps that follow hangs on the mask r >> t, so y would have to be opened under it;
    beside the public X that shows whether x + r wrapped, which near the edge is a comparison of x with a known number.

    Raises:
        DangerZone: an element fell there, with probability 2^(k - 63) each; nothing wrong was computed.
        ValueError: the declared bound leaves no room for a zone.
        StaleMask: x was opened in an earlier epoch, so that X would be the same in each attempt, and so its zone.
    """
    drop = x.scale - scale
    if drop <= 0:
        return x.upscaled(scale)
    source = x.source
    if x.bits > 62:
        raise ValueError(f"numbers below 2^{x.bits} are truncated; beyond 2^62 nobody would see what wraps")
    if x.epoch != source.epoch and x.public.numel():
        raise StaleMask(
            f"stage {source.meter.current}: numbers {tuple(x.shape)} that were opened in epoch {x.epoch} are truncated "
            f"in epoch {source.epoch}, where no retry would change them; truncate them in the segment that opens them"
        )
    if source.rank != DEALER:
        source.note(x.bits)
        source.retries.risk(x.public.numel(), 2.0 ** (x.bits - 63))
        edge = 2**63 - 2**x.bits
        if x.public.numel():
            least, largest = torch.aminmax(x.public)
            if int(least) < -edge or int(largest) >= edge:
                size = f"{x.public.numel():,} numbers below 2^{x.bits}"
                raise DangerZone(f"stage {source.meter.current}, where {size} are truncated")
    cut = source.shared(x.shape, lambda: x.mask >> drop)
    public = cut.first if source.rank == DEALER else x.public >> drop
    return Masked(source, public, cut.share, scale, x.limit, x.epoch)


def matmul(x: Masked, y: Masked, limit: float | None = None) -> Additive:
    """Batched matrix product [..., a, b] @ [..., b, c]: no round, 8 offline bytes an output, to the server.

    z_0 = (X - r_0) Y - X s_0 + c_0 and z_1 = -r_1 Y - X s_1 + c_1 with masks r, s and c = r s.
    """
    return bilinear(x, y, ring.matmul, limit or x.limit * y.limit * x.shape[-1])


def bilinear(x: Masked, y: Masked, product: Callable[[Tensor, Tensor], Tensor], limit: float) -> Additive:
    """Any bilinear function of two masked values; see `matmul`."""
    source, scale = x.source, x.scale + y.scale
    if source.rank == DEALER:
        dealt = product(x.mask, y.mask)
        source.shared(dealt.shape, lambda: dealt)
        return Additive(source, source.stand_in(dealt.shape), scale, limit)
    own = x.public - x.mask if source.rank == CLIENT else -x.mask
    share = product(own, y.public) - product(x.public, y.mask)
    return Additive(source, share + source.shared(share.shape, _never).share, scale, limit)


def arithmetic(source: Source, bit: tuple[Bits, Bits]) -> Additive:
    """Additive shares of 0 or 1 from an opened bit: no round, 8 offline bytes each, to the server."""
    masked, beta = bit
    mask = source.shared(masked.shape, lambda: torch.from_numpy(beta.astype(np.int64))).share
    public = torch.from_numpy(masked.astype(np.int64)).to(mask.device)
    if source.rank == DEALER:
        share = source.stand_in(masked.shape)
    else:
        share = (public if source.rank == CLIENT else 0) + (1 - 2 * public) * mask
    return Additive(source, share, 0, 1.0 + 2.0**-ring.FRACTION_BITS)


def _never() -> Tensor:
    raise AssertionError("only the dealer knows this")
