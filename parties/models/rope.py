"""Divisors of rotary frequencies in models with a scaled context ("rope scaling"): public, from the configuration."""

import math
from collections.abc import Mapping
from typing import Any

from parties.errors import ModelError

# Keys of each type of scaling; any other key in the mapping is refused, since it would be ignored.
_ORIGINAL = "original_max_position_embeddings"
_PLAIN = {"rope_type", "type", "rope_theta", "partial_rotary_factor", _ORIGINAL}
_SCALED = _PLAIN | {"factor"}
_KEYS = {"default": _PLAIN, "linear": _SCALED, "llama3": _SCALED | {"low_freq_factor", "high_freq_factor"}}
# With factor 1 these have no effect either.
_NEUTRAL_AT_ONE = {
    "default": _SCALED,
    "dynamic": _SCALED | {"alpha"},
    "yarn": _SCALED | {"beta_fast", "beta_slow", "truncate"},
}
_WIDEST_HEAD = 65_536  # bound on the divisors generated from a configuration that may be damaged


def divisors(name: str, rope: Mapping[str, Any], theta: float, head_dim: int, positions: int) -> tuple[float, ...]:
    """Divisors of the rotary frequencies of a head, `head_dim / 2` numbers; empty if nothing is scaled.

    Args:
        name: Name of the mapping in its file, for messages.
        rope: `rope_parameters` or `rope_scaling` of a `config.json`.
        theta: Base of the frequencies.
        head_dim: Width of a head.
        positions: Longest sequence of the model, in tokens; default of `llama3` for the original context.

    Raises:
        ModelError: A type of scaling or one of its keys is not supported, or a value is invalid.
    """
    kind = rope.get("rope_type", rope.get("type", "default"))
    known = _KEYS | (_NEUTRAL_AT_ONE if rope.get("factor") == 1 else {})
    if kind not in list(known):
        raise ModelError(f"{name}.rope_type is {kind!r}; supported: {', '.join(_KEYS)}")
    if unknown := sorted(set(map(str, rope)) - known[kind]):
        raise ModelError(f"{name}.{unknown[0]} is not supported with rope_type {kind!r}; supported: a model without it")
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
        ModelError: The factor or the width of a head is invalid.
    """
    if type(head_dim) is not int or not 1 < head_dim <= _WIDEST_HEAD:
        raise ModelError(f"head_dim is {head_dim!r}; it must be a whole number from 2 to {_WIDEST_HEAD}")
    divisor = _positive(name, {"factor": factor}, "factor")
    return () if divisor == 1 else (divisor,) * (head_dim // 2)


def _llama3(turns: float, factor: float, low: float, high: float) -> float:
    """Divisor of a frequency with `turns` turns in the original context: 1 for many turns, `factor` for few.

    Between `low` and `high` turns the frequency itself is interpolated, as in Llama 3.1 (arXiv 2407.21783).
    """
    share = min(1.0, max(0.0, (turns - low) / (high - low)))
    return 1 / (share + (1 - share) / factor)


def _positive(name: str, rope: Mapping[str, Any], key: str) -> float:
    value = rope.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ModelError(f"{name}.{key} is {value!r}; it must be a positive number")
    return float(value)
