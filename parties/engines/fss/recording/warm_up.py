"""Compilation of all loops before a timed phase begins."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from parties.engines.fss.kernels.compiled import code_folder


def compile_all() -> None:
    """Compiles the loops and the tape machine, or loads them from the cache; later calls do nothing.

    The first time on a machine it takes some ten seconds of a processor, later half a second. Parties that start
    together compile once: the others wait and load.
    """
    with _alone():
        from parties.engines.fss.kernels import loops, threads  # noqa: F401 - importing compiles
        from parties.engines.fss.recording import machine  # noqa: F401


@contextmanager
def _alone() -> Iterator[None]:
    """Holds a lock of the folder of compiled code; without a folder there is nothing to wait for."""
    folder = code_folder()
    if folder is None:
        yield
        return
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
