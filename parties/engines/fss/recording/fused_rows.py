"""The innermost loops of instructions that do more than one operation; see `rows`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from parties.engines.fss.recording.rows import (
    CONTIGUOUS,
    RIGHT_BROADCAST,
    Rows,
    elementwise,
    inner,
    load_64,
    shifted_right,
    store_8,
    store_64,
)

_BOTH_BROADCAST = (1, 1, 0, 0)


@inner
def checked_shift(
    n: int, o: int, so: int, a: int, sa: int, b: int, sb: int, flag: int, drop: int, edge: int
) -> None:  # fmt: skip
    """Shifts sums right; sets the flag if one of them is not in -edge .. edge - 1."""
    outside = False
    if so == 1 and sa == 1 and sb == 1:
        for i in range(n):
            x = load_64(a, i) + load_64(b, i)
            outside |= (x < -edge) | (x >= edge)
            store_64(o, i, x >> drop)
    elif so == 1 and sa == 1 and sb == 0:
        right = load_64(b, 0)
        for i in range(n):
            x = load_64(a, i) + right
            outside |= (x < -edge) | (x >= edge)
            store_64(o, i, x >> drop)
    else:
        for i in range(n):
            x = load_64(a, i * sa) + load_64(b, i * sb)
            outside |= (x < -edge) | (x >= edge)
            store_64(o, i * so, x >> drop)
    if outside:
        store_8(flag, 0, np.uint8(1))


@inner
def mul_total_64(n: int, o: int, so: int, a: int, sa: int, b: int, sb: int) -> None:
    """Adds products to the output: a sum of all of them if its stride is 0, else element by element."""
    if so == 0:
        total = load_64(o, 0)
        if sa == 1 and sb == 1:
            for i in range(n):
                total += load_64(a, i) * load_64(b, i)
        else:
            for i in range(n):
                total += load_64(a, i * sa) * load_64(b, i * sb)
        store_64(o, 0, total)
    else:
        for i in range(n):
            store_64(o, i * so, load_64(o, i * so) + load_64(a, i * sa) * load_64(b, i * sb))


def _ternary(build: Callable[..., Any], *cases: Sequence[int]) -> Rows:
    return elementwise((64, 64, 64, 64), build, *(cases or (CONTIGUOUS, RIGHT_BROADCAST)))


mul_add_64 = _ternary(lambda builder, a, b, c: builder.add(builder.mul(a, b), c))
mul_sub_64 = _ternary(lambda builder, a, b, c: builder.sub(builder.mul(a, b), c))
sub_mul_64 = _ternary(lambda builder, a, b, c: builder.mul(builder.sub(a, b), c))
sub_add_64 = _ternary(lambda builder, a, b, c: builder.add(builder.sub(a, b), c))
add_add_64 = _ternary(lambda builder, a, b, c: builder.add(builder.add(a, b), c))
shr_and_64 = _ternary(lambda builder, a, b, c: builder.and_(shifted_right(builder, a, b), c), _BOTH_BROADCAST)
