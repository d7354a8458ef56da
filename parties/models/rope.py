"""Rotary positions (RoFormer, arXiv 2104.09864) and the scalings of their context: all public numbers."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from parties.errors import ModelError

_ORIGINAL = "original_max_position_embeddings"
_WIDEST_HEAD = 65_536  # bound on the divisors generated from a configuration that may be damaged


@dataclass(frozen=True)
class Rope:
    """The rotary positions of a layer; see the fields of `ModelSpec` with these names.

    Attributes:
        theta: Base of the frequencies.
        dims: Leading elements of a head that are rotated.
        divisors: Divisor of each frequency, dims / 2 numbers; empty: 1.
        scale: Factor of cosines and sines.
        original: Length up to which the frequencies are those of `divisors`.
        long_divisors: Divisors for longer sequences (LongRoPE, arXiv 2402.13753).
        growth: Factor of dynamic scaling of longer sequences; 0: none.
    """

    theta: float
    dims: int
    divisors: tuple[float, ...] = ()
    scale: float = 1.0
    original: int = 0
    long_divisors: tuple[float, ...] = ()
    growth: float = 0.0

    @property
    def depends_on_length(self) -> bool:
        """Whether a position is rotated differently in a longer sequence."""
        return bool(self.long_divisors or self.growth)

    def frequencies(self, length: int = 0) -> Tensor:
        """Angles between adjacent positions, one per pair of elements, [dims / 2], float64.

        Args:
            length: Tokens of the sequence, up to the last token that is computed at the same time.
        """
        theta, divisors, half = self.theta, self.divisors, self.dims // 2
        if self.depends_on_length and length > self.original:
            divisors = self.long_divisors or divisors
            theta *= (1 + self.growth * (length / self.original - 1)) ** (half / max(1, half - 1))
        plain = theta ** (-torch.arange(half, dtype=torch.float64) / half)
        return plain / torch.tensor(divisors, dtype=torch.float64) if divisors else plain

    def angles(self, positions: Tensor, length: int) -> Tensor:
        """Angles of n positions, float64, in a sequence of `length` tokens: [n, dims], those of each pair twice."""
        return (positions.unsqueeze(1) * self.frequencies(length)).repeat(1, 2)


def read_rope(
    name: str, rope: Mapping[str, Any], theta: float, dims: int, positions: int, original: int | None = None
) -> dict[str, Any]:
    """The fields of `ModelSpec` that follow from a mapping of a `config.json`, without those at their default.

    Args:
        name: Name of the mapping in its file, for messages.
        rope: `rope_parameters` or `rope_scaling`.
        theta: Base of the frequencies.
        dims: Leading elements of a head that are rotated.
        positions: Longest sequence of the model, in tokens; default of the original context.
        original: The original context, if the configuration has it outside of the mapping.

    Raises:
        ModelError: A type of scaling or one of its keys is not supported, or a value is invalid.
    """
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in list(_KINDS):
        raise ModelError(f"{name}.rope_type is {kind!r}; supported: {', '.join(_KINDS)}")
    keys, read = _KINDS[kind]
    neutral = kind in ("default", "linear") and rope.get("factor") == 1
    if unknown := sorted(set(map(str, rope)) - _PLAIN - keys - ({"factor"} if neutral else set())):
        raise ModelError(f"{name}.{unknown[0]} is not supported with rope_type {kind!r}; supported: a model without it")
    context = {_ORIGINAL: positions, **rope} | ({} if original is None else {_ORIGINAL: original})
    return read(_Mapping(name, context), theta, _width(dims), positions)


def linear(name: str, factor: object, dims: object) -> tuple[float, ...]:
    """Every frequency divided by the same factor; empty for a factor of 1.

    Raises:
        ModelError: The factor or the width of a head is invalid.
    """
    half, divisor = _width(dims) // 2, _Mapping(name, {"factor": factor}).positive("factor")
    return () if divisor == 1 else (divisor,) * half


@dataclass(frozen=True)
class _Mapping:
    name: str
    values: Mapping[str, Any]

    def positive(self, key: str, default: float | None = None) -> float:
        value = self.values.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ModelError(f"{self.name}.{key} is {value!r}; it must be a positive number")
        return float(value)

    def divisors(self, key: str, dims: int) -> tuple[float, ...]:
        value = self.values.get(key)
        if not isinstance(value, list) or len(value) != dims // 2:
            raise ModelError(
                f"{self.name}.{key} is {str(value)[:80]}; it must be a list of {dims // 2} positive numbers"
            )
        return tuple(_Mapping(self.name, {key: number}).positive(key) for number in value)


def _width(dims: object) -> int:
    if type(dims) is not int or not 1 < dims <= _WIDEST_HEAD:
        raise ModelError(f"head_dim is {dims!r}; it must be a whole number from 2 to {_WIDEST_HEAD}")
    return dims


def _default(rope: _Mapping, theta: float, dims: int, positions: int) -> dict[str, Any]:  # noqa: ARG001
    return {}


def _linear(rope: _Mapping, theta: float, dims: int, positions: int) -> dict[str, Any]:  # noqa: ARG001
    divisors = linear(rope.name, rope.values.get("factor"), dims)
    return {"rope_divisors": divisors} if divisors else {}


def _llama3(rope: _Mapping, theta: float, dims: int, positions: int) -> dict[str, Any]:  # noqa: ARG001
    """Divides frequencies with few turns in the original context by `factor`, those with many by 1.

    Between `low` and `high` turns the frequency itself is interpolated, as in Llama 3.1 (arXiv 2407.21783).
    """
    factor = rope.positive("factor")
    low, high = rope.positive("low_freq_factor"), rope.positive("high_freq_factor")
    if high <= low:
        raise ModelError(f"{rope.name}.high_freq_factor is {high:g}; it must be above low_freq_factor, {low:g}")
    original = rope.positive(_ORIGINAL)
    turns = [original / (2 * math.pi * theta ** (2 * i / dims)) for i in range(dims // 2)]
    return _interpolated(factor, [(number - low) / (high - low) for number in turns])


def _yarn(rope: _Mapping, theta: float, dims: int, positions: int) -> dict[str, Any]:
    """YaRN (arXiv 2309.00071): as `llama3`, but linear in the index of the frequency; with warmer attention."""
    original = rope.positive(_ORIGINAL)
    factor = rope.positive("factor", None if original == positions else positions / original)
    fast, slow = rope.positive("beta_fast", 32), rope.positive("beta_slow", 1)
    first, last = (dims * math.log(original / (2 * math.pi * beta)) / (2 * math.log(theta)) for beta in (fast, slow))
    if rope.values.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dims - 1)
    width = last - first or 0.001
    found = _interpolated(factor, [1 - (i - first) / width for i in range(dims // 2)])
    numerator, denominator = rope.values.get("mscale"), rope.values.get("mscale_all_dim")

    def warmth(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0

    both = numerator and denominator
    usual = warmth(rope.positive("mscale")) / warmth(rope.positive("mscale_all_dim")) if both else warmth(1)
    return found | _scale(rope.positive("attention_factor", usual))


def _longrope(rope: _Mapping, theta: float, dims: int, positions: int) -> dict[str, Any]:  # noqa: ARG001
    """LongRoPE (arXiv 2402.13753): one list of divisors up to the original context, another one beyond."""
    original = rope.positive(_ORIGINAL)
    factor = rope.positive("factor", positions / original)
    usual = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 and original > 1 else 1.0
    return {
        "rope_divisors": rope.divisors("short_factor", dims),
        "rope_long_divisors": rope.divisors("long_factor", dims),
        "rope_original": int(original),
    } | _scale(rope.positive("attention_factor", usual))


def _dynamic(rope: _Mapping, theta: float, dims: int, positions: int) -> dict[str, Any]:  # noqa: ARG001
    """Dynamic NTK scaling: `factor` times as many tokens as the configuration says, with a base that grows."""
    factor = rope.positive("factor")
    if factor <= 1:
        return {}
    return {"rope_growth": factor, "rope_original": positions, "max_positions": int(positions * factor)}


def _interpolated(factor: float, kept: list[float]) -> dict[str, Any]:
    """Divisors 1 / (k + (1 - k) / factor) for shares k of the unscaled frequency, cut to 0 to 1."""
    shares = [min(1.0, max(0.0, share)) for share in kept]
    return {} if factor == 1 else {"rope_divisors": tuple(1 / (k + (1 - k) / factor) for k in shares)}


def _scale(factor: float) -> dict[str, Any]:
    return {} if factor == 1 else {"rope_scale": factor}


_PLAIN = {"rope_type", "type", "rope_theta", "partial_rotary_factor", _ORIGINAL}
_Read = Callable[[_Mapping, float, int, int], dict[str, Any]]
_KINDS: Mapping[str, tuple[set[str], _Read]] = {
    "default": (set(), _default),
    "dynamic": ({"factor"}, _dynamic),
    "linear": ({"factor"}, _linear),
    "llama3": ({"factor", "low_freq_factor", "high_freq_factor"}, _llama3),
    "longrope": ({"factor", "attention_factor", "short_factor", "long_factor"}, _longrope),
    "yarn": (
        {"factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"},
        _yarn,
    ),
}
"""For each type of scaling its keys, since any other key would be ignored, and its reader."""
