"""Compilation of all loops and kernels before a timed phase begins."""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from parties.engines.fss.kernels.compiled import code_folder

COMPILE = "setup.compile"
"""The stage of compilation."""
TRITON_FOLDER = "TRITON_CACHE_DIR"


def compile_all(device: torch.device | str = "cpu") -> None:
    """Compiles the loops and the tape machine, or loads them from the cache; later calls do nothing.

    The first time on a machine it takes some ten seconds of a processor, later half a second; the kernels of a GPU take
    up to a minute the first time. Parties that start together compile once: the others wait and load.

    Args:
        device: Where a computing party computes.
    """
    with _alone():
        from parties.engines.fss.kernels import loops, table_sums, threads  # noqa: F401 - importing compiles
        from parties.engines.fss.recording import machine  # noqa: F401

        if (device := torch.device(device)).type == "cuda":
            from parties.engines.fss.kernels import first_launches  # Triton, which only a GPU needs

            first_launches.launch_others(device)


def compile_products(device: torch.device, columns: Iterable[int]) -> None:
    """Compiles the products with matrices on a GPU, and the keystream that masks them.

    Args:
        device: Where they are computed; on a CPU there is nothing to do.
        columns: Columns of the matrices, [out, in].
    """
    if device.type == "cuda":
        with _alone():
            from parties.engines.fss.kernels import first_launches  # Triton, which only a GPU needs

            first_launches.launch_products(device, columns)


@contextmanager
def _alone() -> Iterator[None]:
    """Holds a lock of the folder of compiled code; without a folder there is nothing to wait for.

    Triton keeps its code there, too, unless the user has named another folder.
    """
    folder = code_folder()
    if folder is None:
        yield
        return
    (folder / "triton").mkdir(mode=0o700, exist_ok=True)
    os.environ.setdefault(TRITON_FOLDER, str(folder / "triton"))
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
