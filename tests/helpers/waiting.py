"""Waiting for another process."""

import contextlib
import time
from collections.abc import Callable


def eventually(condition: Callable[[], object], seconds: float = 120.0) -> bool:
    """Whether a condition becomes true in time; false or an error means not yet."""
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        with contextlib.suppress(OSError):
            if condition():
                return True
        time.sleep(0.05)
    return False
