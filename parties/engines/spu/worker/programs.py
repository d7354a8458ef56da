"""The operations of a graph in jax, as SPU compiles them; one function per name of `OPERATIONS`.

All values are float32, which SPU computes in fixed point. Selections are one-hot rows.
"""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any
_DEEP = -14.0  # exp of less is below the resolution of 18 fraction bits (PUMA, arXiv 2307.12533)
_MASKED = -1e4
_LEAST = 2.0**-18


def decode(text: str) -> tuple[Callable[..., tuple[Array, ...]], list[tuple[tuple[int, ...], bool]]]:
    """The function of a graph, and the shape of each of its inputs and whether it is public.

    Args:
        text: JSON of `inputs`, `nodes` and `outputs`; arguments and outputs are positions in inputs and nodes together.
    """
    graph = json.loads(text)

    def program(*inputs: Array) -> tuple[Array, ...]:
        values = list(inputs)
        for name, arguments, parameters in graph["nodes"]:
            values.append(OPERATIONS[name](*(values[i] for i in arguments), *parameters))
        return tuple(values[i] for i in graph["outputs"])

    return program, [(tuple(shape), public) for shape, public in graph["inputs"]]


# -- linear with public operands ---------------------------------------------------------------------------------------


def _index(x: Array, parts: Sequence[Any]) -> Array:
    return x[tuple(slice(*part) if isinstance(part, list) else part for part in parts)]


def _take(x: Array, indices: Sequence[Any]) -> Array:
    """Rows of one axis, or of an index array for each axis, at public positions."""
    return x[tuple(np.array(index) for index in indices)]


def _cat(*given: Any) -> Array:
    *parts, dim = given
    return jnp.concatenate(parts, dim)


# -- functions ---------------------------------------------------------------------------------------------------------


def _normalise(x: Array, eps: float) -> Array:
    """Rows over their root mean square.

    The squares of x / 2^k, 2^k close to 4 sqrt(d), are summed in one product, which is truncated once. So neither the
    squares of rows with mean squares to 10^7 overflow, nor does the inverse root of rows from 10^-2 on lose its bits.
    """
    d = x.shape[1]
    k = round(math.log2(d) / 2) + 2
    share = d * 4.0**-k
    y = x * 2.0**-k
    total = jnp.einsum("nd,nd->n", y, y)[:, None]
    return x * math.sqrt(share) * jax.lax.rsqrt(total + max(eps * share, _LEAST))


def _softmax(x: Array, mask: Array | None = None) -> Array:
    """Exponentials of what is within 14 of the row's largest, times the reciprocal of their sum, as PUMA does it."""
    if mask is not None:
        x = x * mask + (1.0 - mask) * _MASKED
    below = x - jnp.max(x, -1, keepdims=True)
    weights = jnp.exp(below) * (below > _DEEP)
    return weights * (1.0 / jnp.sum(weights, -1, keepdims=True))


def _silu(x: Array) -> Array:
    """The product of x and its sigmoid, of x within 14.

    The piecewise polynomials of SPU's LLaMA example are off by up to 0.07.
    """
    return x / (1.0 + jnp.exp(-jnp.clip(x, _DEEP, -_DEEP)))


def _gelu(x: Array) -> Array:
    """GELU's tanh form, x sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)), of x within 5; 5e-4 from the exact one."""
    bounded = jnp.clip(x, -5.0, 5.0)
    inner = (bounded * bounded * 0.044715 + 1.0) * bounded * 1.5957691216057308
    return x / (1.0 + jnp.exp(-inner))


def _soft_cap(x: Array, cap: float) -> Array:
    """The product of cap and tanh(x / cap), which is 2 sigmoid(2 x / cap) - 1, of x within 7 cap."""
    doubled = jnp.clip(x * (2.0 / cap), _DEEP, -_DEEP)
    return 2.0 * cap / (1.0 + jnp.exp(-doubled)) - cap


def _negative(x: Array) -> Array:
    return (x < 0.0).astype(jnp.float32)


# -- selection ---------------------------------------------------------------------------------------------------------


def _ranks(x: Array) -> Array:
    """Rank of each element of [rows, n] in its row, 0 for the largest; the lower index first among equals."""
    n = x.shape[1]
    later = np.triu(np.ones((n, n), np.int32), 1)
    loses = (x[:, :, None] < x[:, None, :]).astype(jnp.int32)
    ahead = 1 - jnp.swapaxes(loses, 1, 2)
    return jnp.sum(loses * later + ahead * later.T, -1)


def _rows_of(flags: Array, count: int) -> Array:
    """One-hot rows [rows, count, n] of the integer flags [rows, n] that are 1, in order."""
    n = flags.shape[1]
    place = flags @ np.triu(np.ones((n, n), np.int32)) * flags - 1
    return _hot(place, count)


def _hot(place: Array, count: int) -> Array:
    return (place[:, None, :] == np.arange(count, dtype=np.int32)[None, :, None]).astype(jnp.float32)


def _keep_top(x: Array, count: int) -> Array:
    return _rows_of((_ranks(x) < count).astype(jnp.int32), count)


def _kept_from(flags: Array, count: int) -> Array:
    return _rows_of((flags > 0.5).astype(jnp.int32), count)


def _top_one_level(fine: Array, count: int) -> Array:
    return _hot(_ranks(fine), count)


def _top_two_levels(coarse: Array, fine: Array, parents: Sequence[int | None], k_coarse: int, k_fine: int) -> Array:
    """Children of coarse clusters that lost are lowered below all others, and do not win."""
    survives = (_ranks(coarse) < k_coarse).astype(jnp.float32)
    adopted = np.array([[parent == i for parent in parents] for i in range(coarse.shape[1])], np.float32)
    orphans = np.array([parent is None for parent in parents], np.float32)
    return _hot(_ranks(fine + (survives @ adopted + orphans - 1.0) * -_MASKED), k_fine)


OPERATIONS: dict[str, Callable[..., Array]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "neg": lambda x: -x,
    "scale": lambda x, factor: x * factor,
    "mul": lambda x, y: x * y,
    "index": _index,
    "take": _take,
    "reshape": lambda x, shape: x.reshape(shape),
    "transpose": lambda x, a, b: jnp.swapaxes(x, a, b),
    "sum": lambda x, dim: jnp.sum(x, dim),
    "cat": _cat,
    "matmul": jnp.matmul,
    "normalise": _normalise,
    "softmax": _softmax,
    "silu": _silu,
    "gelu": _gelu,
    "soft_cap": _soft_cap,
    "maximum": jnp.maximum,
    "largest": lambda x, dim: jnp.max(x, dim, keepdims=True),
    "negative": _negative,
    "inverse_root": jax.lax.rsqrt,
    "argmax": lambda x: jnp.argmax(x, -1).astype(jnp.float32),
    "keep_top": _keep_top,
    "kept_from": _kept_from,
    "top_one_level": _top_one_level,
    "top_two_levels": _top_two_levels,
}
