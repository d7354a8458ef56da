"""Elementwise, Beaver-style multiplication: no round, one correlation for each set of factors, all dealt in one draw.

prod (X_i - r_i) expands into the public X_i and products of the masks, which the dealer knows and shares (ABY2.0,
Patra, Schneider, Suresh, Yalame, USENIX Security 2021, section 3.3, for any number of factors).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from parties.engines.fss.arithmetic.values import Additive, Masked
from parties.engines.fss.randomness.source import CLIENT, DEALER, Bits, Source

Secret = tuple[tuple[int, ...], Callable[[], Tensor]]
"""A factor that only the dealer knows: its shape, and a function, called by the dealer only, for its integers."""
Term = Sequence[Masked]
"""Factors of one product."""
_Set = tuple[int, ...]  # the `id` of each factor


def multiply(factors: Term, secret: Secret | None = None, limit: float | None = None) -> Additive:
    """Multiplies masked values elementwise, with broadcasting, and optionally by a factor of the dealer's.

    With m factors 8 * 2^m offline bytes per element, to the server, or 8 (2^m - 1 - m) without a factor of the
    dealer's, and less where a set of factors has a smaller shape.

    Args:
        factors: Masked values.
        secret: Factor of the dealer's, of absolute value 1.
        limit: Bound of the result; by default the product of the factors' bounds.
    """
    return sum_of_products([factors], secret, limit)


def sum_of_products(terms: Sequence[Term], secret: Secret | None = None, limit: float | None = None) -> Additive:
    """Adds products as of `multiply`, all with the same dealer's factor; sets that two of them share are dealt once.

    Args:
        terms: Factors of each product; their scales must have the same sum.
        secret: Factor of the dealer's, of absolute value 1.
        limit: Bound of the result; by default the sum of the products of the factors' bounds.

    Raises:
        ValueError: The products have different scales.
    """
    return _products(terms, [secret], limit)[0]


def signed_sum(x: Masked, sign: Secret, limit: float) -> Additive:
    """Adds s x over the last axis, s being the dealer's, of absolute value 1: sum X [s] - [sum s r].

    8 offline bytes per sign and per sum, to the server.

    Args:
        x: [..., n].
        sign: The factors s, in a shape that broadcasts to that of x.
        limit: Bound of the sums.
    """
    source, shape = x.source, x.shape[:-1]
    signs, masks = source.deal_each([sign[0], shape], [sign[1], lambda: (sign[1]() * x.mask).sum(-1)])
    share = source.placeholder(shape) if source.rank == DEALER else (x.public * signs).sum(-1) - masks
    return Additive(source, share, x.scale, limit)


def select(
    bit: tuple[Bits, Bits], terms: Sequence[Term], secret: Secret | None = None, plain: Additive | None = None
) -> Additive:
    """Multiplies `sum_of_products` by a secret bit: no round once the masked bit is open.

    Takes the offline bytes of the products twice, or once if `plain` is given. With the public c = b ^ beta and the
    dealer's beta, b = c + (1 - 2c) beta.

    Args:
        bit: The masked bit and the share of its mask, as `gates.xor_bits` returns them.
        terms: See `sum_of_products`.
        secret: See `sum_of_products`.
        plain: The products without the bit, if they were computed before.
    """
    masked, beta = bit
    shape = np.broadcast_shapes(masked.shape, *([secret[0]] if secret else []))

    def flipped() -> Tensor:
        return beta.long() * secret[1]() if secret else beta.long()

    *made, other = _products(terms, [*([secret] if plain is None else []), (shape, flipped)], None)
    plain = plain or made[0]
    public = masked.long()
    return Additive(plain.source, plain.share * public + other.share * (1 - 2 * public), plain.scale, plain.limit)


def _products(terms: Sequence[Term], secrets: Sequence[Secret | None], limit: float | None) -> list[Additive]:
    """Computes `sum_of_products` for each of several secrets."""
    source, (scale, *others) = terms[0][0].source, [sum(factor.scale for factor in term) for term in terms]
    if any(other != scale for other in others):
        raise ValueError(f"products of {[scale, *others]} fraction bits cannot be summed; rescale their factors")
    bound = sum(math.prod(factor.limit for factor in term) for term in terms) if limit is None else limit
    factors = [factor for term in terms for factor in term]
    results = []
    for secret, shares in zip(secrets, _deal(source, terms, secrets), strict=True):
        shape = _broadcast([factor.shape for factor in factors] + ([secret[0]] if secret else []))
        if source.rank == DEALER:
            share = source.placeholder(shape)
        else:
            share = reduce(torch.add, (_expanded(shares, (), term) for term in terms)).expand(shape)
        results.append(Additive(source, share, scale, bound))
    return results


def _expanded(shares: Mapping[_Set, Tensor], masks: _Set, factors: Term) -> Tensor:
    """Returns a share of the product of these masks and these factors."""
    if not factors:
        return shares[masks]
    first, rest = factors[0], factors[1:]
    return first.public * _expanded(shares, masks, rest) - _expanded(shares, (*masks, id(first)), rest)


def _deal(source: Source, terms: Sequence[Term], secrets: Sequence[Secret | None]) -> list[dict[_Set, Tensor]]:
    """Deals, for each secret, shares of its product with the masks of each set of factors."""
    sets = {
        tuple(map(id, chosen)): chosen
        for term in terms
        for size in range(len(term) + 1)
        for chosen in combinations(term, size)
    }
    shares: list[dict[_Set, Tensor]] = [{} for _ in secrets]
    wanted, shapes, wholes = [], [], []
    for index, secret in enumerate(secrets):
        for name, chosen in sets.items():
            if secret is None and len(chosen) < 2:
                one = torch.tensor(1 if source.rank == CLIENT else 0)
                shares[index][name] = chosen[0].mask if chosen else one
                continue
            wanted.append((index, name))
            shapes.append(_broadcast([factor.shape for factor in chosen] + ([secret[0]] if secret else [])))
            wholes.append(_whole(chosen, secret))
    for (index, name), dealt in zip(wanted, source.deal_each(shapes, wholes), strict=True):
        shares[index][name] = dealt
    return shares


def _whole(factors: Term, secret: Secret | None) -> Callable[[], Tensor]:
    """Returns the product that the dealer shares."""
    return lambda: reduce(torch.mul, [factor.mask for factor in factors] + ([secret[1]()] if secret else []))


def _broadcast(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    first = shapes[0]
    if all(shape == first for shape in shapes):
        return tuple(first)
    return np.broadcast_shapes(*shapes)
