"""Waiting for another process."""

import contextlib
import time
from collections.abc import Callable

# Tests wait for events and fail where an event can no longer happen; this limit only ends a test that hangs. It is far
# longer than anything takes on a machine with every core busy, and shorter than pytest's own limit.
PATIENCE_S = 900.0


def eventually(condition: Callable[[], object], seconds: float = PATIENCE_S) -> bool:
    """Whether a condition becomes true in time; false or an error means not yet."""
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        with contextlib.suppress(OSError):
            if condition():
                return True
        time.sleep(0.05)
    return False


def wait_until(condition: Callable[[], object], state: Callable[[], object] = lambda: "it did not happen") -> None:
    """Waits until a condition is true.

    Args:
        condition: may itself raise, if what it waits for cannot happen any more.
        state: what to show of the state if the wait is given up.
    """
    stop = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < stop, state()
        time.sleep(0.1)
