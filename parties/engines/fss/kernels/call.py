"""How compiled loops are called: the one place where tensors become arrays, and where a tracer learns of a call."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor


class CallTracer(Protocol):
    """Notes calls."""

    def call(self, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """Calls the function by `call_untraced`, and notes that it did."""


class _Traced(threading.local):
    tracers: tuple[CallTracer, ...] = ()


_traced = _Traced()


def call(function: Callable[..., None], *arguments: Any) -> None:
    """Calls a function of arrays and numbers on tensors, which it reads and writes in place.

    A tape that is recorded meanwhile calls it again with arrays over its own memory and the same numbers.

    Args:
        function: A compiled loop, or a plain function on public numbers.
        arguments: Contiguous tensors on the CPU, passed as NumPy views of the same memory; tensors on a GPU, passed as
            they are; and numbers.

    Raises:
        TypeError: The function returned something, which a tape would drop.
    """
    if _traced.tracers:
        _traced.tracers[-1].call(function, arguments)
    else:
        call_untraced(function, arguments)


def call_untraced(function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Does what `call` does, out of sight of a tracer."""
    returned: Any = function(*map(handed_over, arguments))  # type: ignore[func-returns-value]
    if returned is not None:
        raise TypeError(f"{function} returned something; a kernel writes its results to its arguments")


def handed_over(argument: Any) -> Any:
    """Returns an argument as a kernel gets it."""
    return argument.numpy() if isinstance(argument, Tensor) and not argument.is_cuda else argument


@contextmanager
def traced_by(tracer: CallTracer) -> Iterator[None]:
    """Reports the calls of this thread to a tracer meanwhile."""
    before, _traced.tracers = _traced.tracers, (*_traced.tracers, tracer)
    try:
        yield
    finally:
        _traced.tracers = before
