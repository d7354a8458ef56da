"""Bounds that a model needs, from the ranges of its numbers."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.ranges.measure import Measured, Range
from parties.engines.bounds import Bound, Kind

HEADROOM = 1.25
"""Factor between the largest number found and its bound, at least."""

RARE_CHANCE = 2.0**-20
"""Per token, the largest accepted probability that a truncation beyond a `rare` bound is wrong."""


@dataclass(frozen=True)
class Proposal:
    """The range of a number, and the bound that it needs.

    Attributes:
        key: Key of the number, as in a file of bounds.
        bound: The engine's own bound.
        found: The range over all layers.
        layer: Layer with the largest absolute value; None outside the layers.
        limit: The proposed bound, a power of two; None if the engine's own is to be kept.
        refused: Whether the engine would certainly compute wrong results, whatever bound is declared.
        tight: Whether the numbers fit, but without the head-room.
        chance: Of a `rare` bound, the probability per token that a truncation beyond it is wrong; 0 of others.
        retries: Of a `rare` bound, expected truncation failures per token; 0 of others.
    """

    key: str
    bound: Bound
    found: Range
    layer: int | None
    limit: int | None = None
    refused: bool = False
    tight: bool = False
    chance: float = 0.0
    retries: float = 0.0


def propose(
    measured: Measured, widest: Mapping[str, float], headroom: float = HEADROOM, narrowed: Collection[str] = ()
) -> list[Proposal]:
    """A proposal for each number that was seen, in the order of the engine's table.

    A number of the kind `certain` needs a bound of at least `headroom` times its largest absolute value. One of the
    kind `rare` needs the least bound beyond which truncations are wrong with a probability of at most `RARE_CHANCE` per
    token: a few large numbers do not pay for the retries that a wider bound of all causes.

    Args:
        measured: The ranges.
        widest: The widest bounds that the engine takes, by key; other numbers keep the engine's own.
        headroom: At least 1.
        narrowed: Numbers of the kind `rare` whose bounds may be narrower than the engine's own, down to 1.
    """
    found = {key: measured.together(key) for key in measured.bounds if math.isfinite(measured.bounds[key].high)}
    return [
        _rare(key, each, measured, widest.get(key), headroom, narrow=key in narrowed)
        if measured.bounds[key].kind is Kind.RARE
        else _certain(key, each, measured, widest.get(key), headroom)
        for key, each in found.items()
        if each is not None
    ]


def bounds_of(proposals: Sequence[Proposal]) -> dict[str, int]:
    """The bounds to declare: those that differ from the engine's own."""
    return {each.key: each.limit for each in proposals if each.limit is not None}


def _certain(key: str, found: Range, measured: Measured, widest: float | None, headroom: float) -> Proposal:
    bound, layer = measured.bounds[key], measured.layer_of(key)
    if bound.low <= headroom * found.least and headroom * found.largest <= bound.high:
        return Proposal(key, bound, found, layer)
    if widest is None or found.magnitude > widest:
        refused = widest is not None or found.least < bound.low or found.largest > bound.high
        return Proposal(key, bound, found, layer, refused=refused, tight=not refused)
    needed = max(2 * bound.limit, _power(headroom * found.magnitude))
    return Proposal(key, bound, found, layer, limit=round(min(needed, widest)), tight=needed > widest)


def _rare(
    key: str, found: Range, measured: Measured, widest: float | None, headroom: float, *, narrow: bool
) -> Proposal:
    bound, tokens = measured.bounds[key], measured.tokens
    limit, most = 1.0 if narrow else bound.limit, widest or bound.limit

    def chance(limit: float) -> float:
        excess = headroom * float(found.beyond[round(math.log2(limit))])
        return min(1.0, excess * 2.0 ** (bound.fraction_bits - 64) / tokens)

    while limit < most and chance(limit) > RARE_CHANCE:
        limit *= 2
    return Proposal(
        key,
        bound,
        found,
        measured.layer_of(key),
        limit=round(limit) if limit != bound.limit else None,
        tight=chance(limit) > RARE_CHANCE,
        chance=chance(limit),
        retries=found.count / tokens * limit * 2.0 ** (bound.fraction_bits - 63),
    )


def _power(value: float) -> float:
    return 2.0 ** math.ceil(math.log2(value))
