"""The operations of a graph in jax, as SPU compiles them; one function per name of `OPERATIONS`.

All values are float32, which SPU computes in fixed point. Selections are one-hot rows.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any
_DEEP = -14.0  # exp of less is below the resolution of 18 fraction bits (PUMA, arXiv 2307.12533)
_MASKED = -1e4


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
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + eps)


def _softmax(x: Array, mask: Array | None = None) -> Array:
    """Exponentials of what is within 14 of the row's largest, times the reciprocal of their sum, as PUMA does it."""
    if mask is not None:
        x = x * mask + (1.0 - mask) * _MASKED
    below = x - jnp.max(x, -1, keepdims=True)
    weights = jnp.exp(below) * (below > _DEEP)
    return weights * (1.0 / jnp.sum(weights, -1, keepdims=True))


def _piecewise(x: Array, cuts: Sequence[float], pieces: Sequence[Array]) -> Array:
    """The piece of each interval between cuts; 0 below the first one and x itself above the last one."""
    above = [(x >= cut).astype(jnp.float32) for cut in cuts]
    y = above[-1] * x
    for low, high, piece in zip(above, above[1:], pieces, strict=False):
        y = y + (low - high) * piece
    return y


def _silu(x: Array) -> Array:
    """Two polynomials, on [-8, -4) and on [-4, 4), as in SPU's LLaMA example."""
    square = x * x
    low = -0.3067541139982155 - 0.0819767021525476 * x - 0.0055465625580307 * square
    fourth = square * square
    middle = 0.0085064025895951 + 0.5 * x + 0.2281430841728270 * square
    middle = middle - 0.011113046708173 * fourth + 0.0002743776353465 * (fourth * square)
    return _piecewise(x, (-8.0, -4.0, 4.0), (low, middle))


def _gelu(x: Array) -> Array:
    """Two polynomials, on [-4, -1.95) and on [-1.95, 3), as PUMA does it."""
    square = x * x
    cube, fourth = square * x, square * square
    low = -0.5054031199708174 - 0.42226581151983866 * x - 0.11807612951181953 * square - 0.011034134030615728 * cube
    middle = 0.008526321541038084 + 0.5 * x + 0.3603292692789629 * square
    middle = middle - 0.037688200365904236 * fourth + 0.0018067462606141187 * (fourth * square)
    return _piecewise(x, (-4.0, -1.95, 3.0), (low, middle))


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
