"""What stretched models divide their rotary frequencies by ("rope scaling"): public numbers, from a configuration."""

import math
from collections.abc import Mapping
from typing import Any

from parties.errors import ModelError

# What each way of scaling is told by; anything else in the mapping would be read past, so it is refused.
_ORIGINAL = "original_max_position_embeddings"
_PLAIN = {"rope_type", "type", "rope_theta", "partial_rotary_factor", _ORIGINAL}
_SCALED = _PLAIN | {"factor"}
_KEYS = {"default": _PLAIN, "linear": _SCALED, "llama3": _SCALED | {"low_freq_factor", "high_freq_factor"}}
# With factor 1 these change nothing either.
_NEUTRAL_AT_ONE = {
    "default": _SCALED,
    "dynamic": _SCALED | {"alpha"},
    "yarn": _SCALED | {"beta_fast", "beta_slow", "truncate"},
}
_WIDEST_HEAD = 65_536  # no more numbers than this are written down for a configuration that may be damaged


def divisors(name: str, rope: Mapping[str, Any], theta: float, head_dim: int, positions: int) -> tuple[float, ...]:
    """What each of a head's rotary frequencies is divided by; empty if nothing is scaled.

    Args:
        name: Of the mapping in its file, for messages.
        rope: `rope_parameters` or `rope_scaling` of a `config.json`.
        theta: Base of the frequencies.
        head_dim: Width of a head.
        positions: Longest sequence of the model, which `llama3` takes where the mapping has no original one.

    Raises:
        ModelError: A way of scaling, or a key of it, that the decoder does not know, or an impossible value.
    """
    kind = rope.get("rope_type", rope.get("type", "default"))
    known = _KEYS | (_NEUTRAL_AT_ONE if rope.get("factor") == 1 else {})
    if kind not in list(known):
        raise ModelError(f"{name}.rope_type is {kind!r}; supported: {', '.join(_KEYS)}")
    if unknown := sorted(set(map(str, rope)) - known[kind]):
        raise ModelError(f"{name}.{unknown[0]} is not understood with rope_type {kind!r}; supported: a model without")
    if (part := rope.get("partial_rotary_factor")) not in (None, 1):
        raise ModelError(f"{name}.partial_rotary_factor is {part!r}; supported: 1.0, the whole head")
    if kind not in ("linear", "llama3") or rope.get("factor") == 1:
        return ()
    uniform = linear(name, rope.get("factor"), head_dim)
    if kind == "linear":
        return uniform
    factor = uniform[0]
    low, high = _positive(name, rope, "low_freq_factor"), _positive(name, rope, "high_freq_factor")
    if high <= low:
        raise ModelError(f"{name}.high_freq_factor is {high:g}; it must be above low_freq_factor, {low:g}")
    original = _positive(name, {_ORIGINAL: positions, **rope}, _ORIGINAL)
    waves = (2 * math.pi * theta ** (2 * i / head_dim) for i in range(head_dim // 2))
    return tuple(_llama3(original / wave, factor, low, high) for wave in waves)


def linear(name: str, factor: object, head_dim: object) -> tuple[float, ...]:
    """Every frequency divided by the same factor; empty for a factor of 1.

    Raises:
        ModelError: An impossible factor or width of a head.
    """
    if type(head_dim) is not int or not 1 < head_dim <= _WIDEST_HEAD:
        raise ModelError(f"head_dim is {head_dim!r}; it must be a whole number from 2 to {_WIDEST_HEAD}")
    divisor = _positive(name, {"factor": factor}, "factor")
    return () if divisor == 1 else (divisor,) * (head_dim // 2)


def _llama3(turns: float, factor: float, low: float, high: float) -> float:
    """Divisor of a frequency with so many turns in the original context: 1 for many turns, `factor` for few.

    Between `low` and `high` turns the frequency itself is interpolated, as in Llama 3.1 (arXiv 2407.21783).
    """
    share = min(1.0, max(0.0, (turns - low) / (high - low)))
    return 1 / (share + (1 - share) / factor)


def _positive(name: str, rope: Mapping[str, Any], key: str) -> float:
    value = rope.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ModelError(f"{name}.{key} is {value!r}; it must be a positive number")
    return float(value)
