"""Loops over all threads that torch may use: products with matrices that no cache holds, and keys of comparisons."""

import os
import threading
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from queue import SimpleQueue
from typing import Any

from parties.engines.fss.kernels import loops

LEAST = 1 << 17
"""Elements of a matrix for which a thread is worth its start: 1 MB, some 70 microseconds of reading."""

LEAST_KEYS = 1 << 8
"""Keys for which a thread is worth its start: each takes a microsecond or two."""


def worthwhile(columns: int, elements: int, threads: int) -> int:
    """Returns how many threads are worth their start for a matrix of so many columns and elements; at least 1."""
    return min(threads, max(1, elements // LEAST), max(1, columns))


def products_by_columns(x: loops.Integers, columns: loops.Integers, product: loops.Integers, threads: int) -> None:
    """Does what `loops.products_by_columns` does, each thread for a part of the columns; bit for bit the same.

    Args:
        x: [b, n, k].
        columns: [b, m, k].
        product: Output, [b, n, m].
        threads: So many threads.
    """
    _together(loops.products_by_columns, [(x, columns, product, *span) for span in _spans(columns.shape[1], threads)])


def products_by_rows(x: loops.Integers, rows: loops.Integers, product: loops.Integers, threads: int) -> None:
    """Does what `loops.products_by_rows` does, each thread for a part of the batch; bit for bit the same.

    Args:
        x: [b, n, k].
        rows: [b, k, m].
        product: Output, [b, n, m], to which is added.
        threads: So many threads.
    """
    spans = [slice(*span) for span in _spans(len(x), threads)]
    _together(loops.products_by_rows, [(x[span], rows[span], product[span]) for span in spans])


def keys(loop: Callable[..., None], *arguments: Any) -> None:
    """Calls a loop that generates keys, each thread for a part of them.

    Args:
        loop: The loop; its last two arguments are the first of a thread's keys and the one after its last.
        arguments: The others, and the number of keys and of threads.
    """
    *others, count, threads = arguments
    _together(loop, [(*others, *span) for span in _spans(count, threads)])


def _together(loop: Callable[..., None], parts: Sequence[tuple[Any, ...]]) -> None:
    """Calls a loop on each part, on the first in this thread."""
    own, *others = parts
    done: SimpleQueue[BaseException | None] = SimpleQueue()
    for worker, part in zip(_workers(len(others)), others, strict=True):
        worker.put((done, loop, part))
    loop(*own)
    for _ in others:
        if (error := done.get()) is not None:
            raise error


@cache
def _spans(count: int, parts: int) -> list[tuple[int, int]]:
    return list(pairwise(count * part // parts for part in range(parts + 1)))


@cache
def _workers(count: int) -> "list[SimpleQueue[Any]]":
    """Returns the queues of threads that wait for products."""
    queues: list[SimpleQueue[Any]] = [SimpleQueue() for _ in range(count)]
    for queue in queues:
        threading.Thread(target=_serve, args=(queue,), name="products", daemon=True).start()
    return queues


def _serve(queue: "SimpleQueue[Any]") -> None:
    while True:
        done, loop, part = queue.get()
        try:
            loop(*part)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            done.put(error)
        else:
            done.put(None)


os.register_at_fork(after_in_child=_workers.cache_clear)  # the child has none of the threads
