"""All declared bounds of the `fss` engine; its programs take them from here, by way of `Source.bounds`.

A bound is of one of two kinds (`parties.engines.bounds.Kind`). Beyond a `rare` bound 2^k, the truncation of a number x
is wrong, undetected, with probability (|x| - 2^k) / 2^64 in integers; within it, never. Beyond a `certain` bound,
signs, look-ups and everything computed from them are wrong, and an opened ranking is not uniformly random. The bound of
a truncated number also determines how often a segment is run again: with probability 2^(k - 63) per number.

Bounds are those of the engine unless a model has its own: `declared`. To compare the numbers of a model
with these bounds, run `mpcache-bench calibrate MODEL`; for SmolLM2-135M see docs/design/0011-ranges.md.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType

from parties.engines.bounds import Bound, Kind, certain, rare
from parties.options import Bounds

_PRODUCT_BITS = 32  # fraction bits of a product of two numbers
_CELLS = 1 << 11  # of a look-up over a range; an index one off turns the last cell into the first, a whole range away

LINEAR: Mapping[str, Bound] = {
    "qkv": rare("output of qkv", 2.0**6, _PRODUCT_BITS),
    "o": rare("output of o", 2.0**9, _PRODUCT_BITS),
    "gate_up": rare("output of gate_up", 2.0**6, _PRODUCT_BITS),
    "up": rare("output of up", 2.0**6, _PRODUCT_BITS),
    "down": rare("output of down", 2.0**11, _PRODUCT_BITS),
    "lm_head": rare("logit", 2.0**8, _PRODUCT_BITS),
    "head_in": rare("output of head_in", 2.0**6, _PRODUCT_BITS),
    "head_out": rare("output of head_out", 2.0**6, _PRODUCT_BITS),
}
PARAMETER_LIMIT = 2.0**6  # embedding, positions, biases and gains; never truncated by themselves
PRODUCT = rare("product", 2.0**10, _PRODUCT_BITS)
MIXED = rare("weighted sum of values", 2.0**5, 36)  # opened before it is divided by the sum of weights, 8 at most
# Numbers of the first layer are small, down to a root mean square of 0.08, and need the fraction bits.
UNSCALED = rare("product of a row before its norm", 2.0**12, 29)
FIRST_UNSCALED = rare("product of a row before its norm, first layer", 2.0**9, 31)
OWN_RAW_SCORE = rare("score of a token's own key before its norm", 2.0**20, 26)  # truncated, one per head
FIRST_LAYER_LIMIT = 2.0**10  # of rows that are the embedding, or that and the first attention's output
MEAN = rare("mean of a row", 2.0**8, 40)

ACTIVATION_CELL = 2.0**-4  # of the table; its length follows from the bound
ACTIVATION = certain("input of the activation", -(2.0**6) + ACTIVATION_CELL, 2.0**6 - ACTIVATION_CELL)
CAPPED = certain("attention score before its cap", -256.0 * (1 - 2 / _CELLS), 256.0 * (1 - 2 / _CELLS))
# The softmax looks scores up modulo 256. The range is asymmetric, since scores lie far below their row's log sum exp
# rather than above it.
SCORE = certain("attention score", -200.0, 54.0)
PEAK = certain("log sum exp of a row of scores", -45.0, 47.0)
MEAN_SQUARE = certain("mean square", 0.0, 2.0**21 * (1 - 1 / _CELLS))
SQUARE_ROOT = certain("input of the inverse square root", 2.0**-10, 2.0**14)
SIMILARITY = certain("similarity that is ranked", -(2.0**11), 2.0**11)
COMPARED_LOGIT = certain("logit that is compared", -(2.0**10), 2.0**10)
DECLARED = certain("number that the policy compares", -math.inf, math.inf)  # the policy declares the range

SCORE_LIMIT = SCORE.limit
STATE_LIMIT = 2.0**16  # a policy's state; the policy declares the bound of each value (`bounded`)
WEIGHT_LIMIT = 4.0  # of exponentials; follows from the bounds of scores
TOTAL_LIMIT = 8.0  # of their sum, in the worst case of rounding in long rows (`ladders.Ladder`)

BOUNDS: Mapping[str, Bound] = {
    **LINEAR,
    "product": PRODUCT,
    "mixed": MIXED,
    "unscaled": UNSCALED,
    "first unscaled": FIRST_UNSCALED,
    "mean": MEAN,
    "activation": ACTIVATION,
    "capped": CAPPED,
    "score": SCORE,
    "peak": PEAK,
    "mean square": MEAN_SQUARE,
    "square root": SQUARE_ROOT,
    "similarity": SIMILARITY,
    "compared logit": COMPARED_LOGIT,
    "declared": DECLARED,
}
"""By the keys of `parties.engines.watched`. Keys and values have the bound of `qkv`; policies that compare keys declare
theirs themselves."""

WIDEST: Mapping[str, float] = {
    **dict.fromkeys(("qkv", "gate_up", "up", "head_in", "head_out", "lm_head"), 2.0**12),
    "o": 2.0**14,
    "down": 2.0**17,
    "product": 2.0**14,
    "mixed": 2.0**8,
    "unscaled": 2.0**16,
    "first unscaled": 2.0**12,
    "mean": 2.0**12,
    "activation": 2.0**9,
    "mean square": 2.0**31,
    "similarity": 2.0**16,
    "compared logit": 2.0**16,
}
"""The widest bounds that a model may have of its own.

Beyond those of truncated numbers, retries would take over. A table of activations grows with its range: a kilobyte per
element at 2^9. Rows of a larger mean square would be squared with fewer than 10 fraction bits, and rankings leave no
room for more."""

NARROWED = frozenset(
    {"o", "gate_up", "up", "down", "lm_head", "product", "mixed", "unscaled", "first unscaled", "mean"}
)
"""The `rare` bounds that a model may narrow, down to 1, for fewer retries. Those of queries, keys, values and trained
heads stay: they also bound what policies compare."""

FIXED: Mapping[str, str] = {
    **dict.fromkeys(("score", "peak"), "the tables of the softmax have one range"),
    "capped": "the table of the cap has one range",
    "square root": "the table of the inverse square root has one range",
    "declared": "a policy declares the range of its own numbers, such as 64 for the keys that page bounds compare",
}
"""Why each of the other bounds cannot be a model's own."""


class BoundRefused(ValueError):  # noqa: N818 - named for what happened
    """A model's own bound that the engine does not take: `number`, `value`, and what is `allowed`."""

    def __init__(self, number: str, value: object, allowed: str) -> None:
        super().__init__(f"the bound of {number!r} is {value!r}; it must be {allowed}")
        self.number, self.value, self.allowed = number, value, allowed


@cache
def declared(own: Bounds) -> Mapping[str, Bound]:
    """The engine's bounds, some of them replaced by a model's own.

    Args:
        own: Numbers with powers of two, up to `WIDEST`; from the engine's own bound on, or from 1 for `NARROWED`.

    Raises:
        BoundRefused: A number's bound cannot be declared, or is not allowed.
    """
    return MappingProxyType({**BOUNDS, **{number: _replaced(number, limit) for number, limit in own}})


def own_only(number: str) -> str:
    """What is allowed for one of `FIXED`, in words."""
    return f"the engine's own: {FIXED[number]}"


def _replaced(number: str, limit: int) -> Bound:
    if number in FIXED:
        raise BoundRefused(number, limit, own_only(number))
    if number not in WIDEST:
        raise BoundRefused(number, limit, f"of one of {', '.join(WIDEST)}")
    own, most = BOUNDS[number], WIDEST[number]
    least = 1 if number in NARROWED else own.limit
    if not least <= limit <= most or limit & (limit - 1):
        raise BoundRefused(number, limit, f"a power of two from {least:.0f} to {most:.0f}")
    if own.kind is Kind.RARE or own.high == own.limit:
        return replace(own, low=-float(limit), high=float(limit))
    if number == "activation":
        return replace(own, low=ACTIVATION_CELL - limit, high=limit - ACTIVATION_CELL)
    return replace(own, high=limit * (1 - 1 / _CELLS))
