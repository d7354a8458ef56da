"""Elementwise products: no round, correlated randomness for each set of factors, drawn at once.

prod (X_i - r_i) expands into the public X and products of the masks, which the dealer knows and shares (ABY2.0, Patra,
Schneider, Suresh, Yalame, USENIX Security 2021, section 3.3, for any number of factors).
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
"""Shape of a number that only the dealer knows, and the number, an integer of scale 0; only the dealer calls it."""
Term = Sequence[Masked]
_Set = tuple[int, ...]  # the `id` of each factor


def product(factors: Term, secret: Secret | None = None, limit: float | None = None) -> Additive:
    """Elementwise product of a few masked values and of a number of the dealer's, with broadcasting.

    With m factors 8 * 2^m offline bytes an element, to the server, or 8 (2^m - 1 - m) without a number of the dealer's,
    and less where a set of factors has a smaller shape.

    Args:
        factors: masked values.
        secret: of size 1.
        limit: bound of the result; by default the product of the factors' bounds.
    """
    return products([factors], secret, limit)


def products(terms: Sequence[Term], secret: Secret | None = None, limit: float | None = None) -> Additive:
    """Sum of such products, each times the same number of the dealer's; a set that two of them share is dealt once.

    Args:
        terms: factors of each product, whose scales sum to the same.
        secret: of size 1.
        limit: bound of the result; by default the sum of the products of the factors' bounds.
    """
    return _products(terms, [secret], limit)[0]


def switched(
    bit: tuple[Bits, Bits], terms: Sequence[Term], secret: Secret | None = None, plain: Additive | None = None
) -> Additive:
    """A secret bit times `products`: no round once the bit is open; the offline bytes of the products once more.

    b = c ^ beta = c + (1 - 2c) beta for the public c and the dealer's beta.

    Args:
        bit: what `gates.xor_bits` returned.
        terms: as for `products`.
        secret: as for `products`.
        plain: the products themselves, where they are at hand.
    """
    masked, beta = bit
    shape = np.broadcast_shapes(masked.shape, *([secret[0]] if secret else []))

    def flipped() -> Tensor:
        mask = torch.from_numpy(beta.astype(np.int64))
        return mask * secret[1]() if secret else mask

    *made, other = _products(terms, [*([secret] if plain is None else []), (shape, flipped)], None)
    plain = plain or made[0]
    public = torch.from_numpy(masked.astype(np.int64)).to(plain.share.device)
    return Additive(plain.source, plain.share * public + other.share * (1 - 2 * public), plain.scale, plain.limit)


def _products(terms: Sequence[Term], secrets: Sequence[Secret | None], limit: float | None) -> list[Additive]:
    """`products` for each of several secrets."""
    source, (scale, *others) = terms[0][0].source, [sum(factor.scale for factor in term) for term in terms]
    if any(other != scale for other in others):
        raise ValueError(f"products of {[scale, *others]} fraction bits cannot be summed; rescale their factors")
    bound = sum(math.prod(factor.limit for factor in term) for term in terms) if limit is None else limit
    factors = [factor for term in terms for factor in term]
    results = []
    for secret, shares in zip(secrets, _deal(source, terms, secrets), strict=True):
        shape = _broadcast([factor.shape for factor in factors] + ([secret[0]] if secret else []))
        if source.rank == DEALER:
            share = source.stand_in(shape)
        else:
            share = reduce(torch.add, (_expanded(shares, (), term) for term in terms)).expand(shape)
        results.append(Additive(source, share, scale, bound))
    return results


def _expanded(shares: Mapping[_Set, Tensor], masks: _Set, factors: Term) -> Tensor:
    """A share of the product of these masks and these factors."""
    if not factors:
        return shares[masks]
    first, rest = factors[0], factors[1:]
    return first.public * _expanded(shares, masks, rest) - _expanded(shares, (*masks, id(first)), rest)


def _deal(source: Source, terms: Sequence[Term], secrets: Sequence[Secret | None]) -> list[dict[_Set, Tensor]]:
    """For each secret a share of its product with the masks of each set of factors."""
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
    for (index, name), dealt in zip(wanted, source.shared_each(shapes, wholes), strict=True):
        shares[index][name] = dealt
    return shares


def _whole(factors: Term, secret: Secret | None) -> Callable[[], Tensor]:
    """What the dealer shares."""
    return lambda: reduce(torch.mul, [factor.mask for factor in factors] + ([secret[1]()] if secret else []))


def _broadcast(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    first = shapes[0]
    if all(shape == first for shape in shapes):
        return tuple(first)
    return np.broadcast_shapes(*shapes)
