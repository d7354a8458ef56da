"""Bounds of the `crypten` engine: the ranges over which the approximations of CrypTen and of `functions` hold.

Truncation can fail for every number: it is wrong, undetected, with probability |x| / 2^32 for each truncated x (with 16
fraction bits, |x| 2^32 of 2^64). The `rare` bounds are those beyond which that probability exceeds 2^-20.
"""

from collections.abc import Mapping

from parties.engines.bounds import Bound, certain, rare

_LARGE = 2.0**12
_BITS = 32  # fraction bits of a product
MASKED_SCORE = -100.0  # below any attention score that matters, and well within the exponential's range

BOUNDS: Mapping[str, Bound] = {
    **{
        name: rare(f"output of {name}", _LARGE, _BITS)
        for name in ("qkv", "o", "gate_up", "up", "down", "head_in", "head_out")
    },
    "lm_head": rare("logit", _LARGE, _BITS),
    "product": rare("product", _LARGE, _BITS),
    # (1 + x / 2^8)^(2^8) is below 5e-6 down to -500 and rises to 1 again at -512
    "depth": certain("attention score less the largest of its row", -500.0, 0.0),
    "masked row": certain("largest score of a masked row", MASKED_SCORE + 15, 2.0**15),
    "activation": certain("input of the activation", -500.0, 500.0),  # the sigmoid's exponential
    "capped": certain("attention score before its cap", -1000.0, 1000.0),  # the sigmoid's, for caps of 4 or more
    "mean square": certain("mean square", 0.0, 2.0**21),  # 19 powers of four of up to twice it
    "square root": certain("input of the inverse square root", 2.0**-10, 2.0**14),
}
"""By the keys of `parties.engines.watched`."""
