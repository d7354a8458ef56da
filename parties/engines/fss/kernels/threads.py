"""Loops over all threads that torch may use, for products with matrices that no cache holds."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

from parties.engines.fss.kernels import loops

LEAST = 1 << 17
"""Elements of a matrix for which a thread is worth its start: 1 MB, some 70 microseconds of reading."""


def products_by_columns(x: loops.Integers, columns: loops.Integers, product: loops.Integers, threads: int) -> None:
    """Does what `loops.products_by_columns` does, each thread for a part of the columns; bit for bit the same.

    Args:
        x: [b, n, k].
        columns: [b, m, k].
        product: Output, [b, n, m].
        threads: At most as many threads.
    """
    count = columns.shape[1]
    parts = min(threads, max(1, columns.size // LEAST), max(1, count))
    own, *spans = pairwise(count * part // parts for part in range(parts + 1))
    others = [_pool(threads).submit(loops.products_by_columns, x, columns, product, *span) for span in spans]
    loops.products_by_columns(x, columns, product, *own)
    for other in others:
        other.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Returns all threads but the caller's, which are started when needed and wait otherwise."""
    return ThreadPoolExecutor(threads - 1, "products")


os.register_at_fork(after_in_child=_pool.cache_clear)  # the child has none of the threads
