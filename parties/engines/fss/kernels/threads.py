"""Loops over all threads that torch may use, for products with matrices that no cache holds."""

import os
import threading
from functools import cache
from itertools import pairwise
from queue import SimpleQueue
from typing import Any

from parties.engines.fss.kernels import loops

LEAST = 1 << 17
"""Elements of a matrix for which a thread is worth its start: 1 MB, some 70 microseconds of reading."""


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
    own, *spans = _spans(columns.shape[1], threads)
    done: SimpleQueue[BaseException | None] = SimpleQueue()
    for worker, span in zip(_workers(threads - 1), spans, strict=True):
        worker.put((done, x, columns, product, *span))
    loops.products_by_columns(x, columns, product, *own)
    for _ in spans:
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
        done, *arguments = queue.get()
        try:
            loops.products_by_columns(*arguments)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            done.put(error)
        else:
            done.put(None)


os.register_at_fork(after_in_child=_workers.cache_clear)  # the child has none of the threads
