"""All declared bounds of the `fss` engine; its programs take their constants from here.

A bound is of one of two kinds (`parties.engines.bounds.Kind`). Beyond a `rare` bound 2^k, the truncation of a number x
is wrong, undetected, with probability (|x| - 2^k) / 2^64 in integers; within it, never. Beyond a `certain` bound,
signs, look-ups and everything computed from them are wrong, and an opened ranking is not uniformly random. The bound of
a truncated number also determines how often a segment is run again: with probability 2^(k - 63) per number.

To compare the numbers of a model with these bounds, run `benchmarks/ranges.py MODEL`; for SmolLM2-135M see
docs/design/0011-ranges.md.
"""

import math
from collections.abc import Mapping

from parties.engines.bounds import Bound, certain, rare

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
FIRST_LAYER_LIMIT = 2.0**10  # of rows that are the embedding, or that and the first attention's output
MEAN = rare("mean of a row", 2.0**8, 40)

ACTIVATION = certain("input of the activation", -64.0 * (1 - 2 / _CELLS), 64.0 * (1 - 2 / _CELLS))
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
CACHE_LIMIT = 2.0**6  # keys and values; policies that compare keys declare it themselves
STATE_LIMIT = 2.0**16  # a policy's state; the policy declares the bound of each value (`bounded`)
WEIGHT_LIMIT = 4.0  # of exponentials; follows from the bounds of scores
TOTAL_LIMIT = 8.0  # of their sum, in the worst case of rounding in long rows (`softmax.Ladder`)

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
"""By the keys of `parties.engines.watched`."""
