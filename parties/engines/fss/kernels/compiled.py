"""Compilation of loops by Numba, and the folder that holds their compiled code.

The folder is `$MPCACHE_BENCH_COMPILED` or `mpcache-bench/compiled` in the user's cache folder, and otherwise a private
one in the folder for temporary files. Python runs the code that it finds there, so it must belong to the user and not
be writable by anyone else.
"""

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import codegen

VARIABLE = "MPCACHE_BENCH_COMPILED"
_PRIVATE = 0o700

F = TypeVar("F", bound=Callable[..., Any])


class UnsafeFolder(Exception):  # noqa: N818 - named for what it says
    """The folder of `$MPCACHE_BENCH_COMPILED` cannot hold code."""


NATIVE = numba.config.CPU_NAME is None and numba.config.CPU_FEATURES is None
"""Whether loops are compiled for this processor, and not for another one that Numba is configured for."""

if NATIVE and "+avx512f" in (features := codegen.get_host_cpu_features()).split(","):
    numba.config.CPU_FEATURES = f"{features},-prefer-256-bit"  # LLVM's choice, with which products take twice as long


def compiled(signature: str) -> Callable[[F], F]:
    """Compiles a function, or loads its code from `code_folder`; without a folder, each process compiles it."""

    def decorate(function: F) -> F:
        folder = code_folder()
        with _cached_in(folder and folder / _sources()) as cached:
            return cast("F", numba.njit(signature, nogil=True, cache=cached)(function))

    return decorate


@cache
def code_folder() -> Path | None:
    """Returns the folder for compiled code, which exists, or None if no folder can be written.

    Raises:
        UnsafeFolder: `$MPCACHE_BENCH_COMPILED` cannot be created, belongs to someone else, or others may write to it.
    """
    if given := os.environ.get(VARIABLE):
        problem = _problem(Path(given).absolute())
        if problem:
            raise UnsafeFolder(
                f"{VARIABLE}={given}: {problem}; set it to a folder that only you can write, or unset it"
            )
        return Path(given).absolute()
    temporary = Path(tempfile.gettempdir()) / f"mpcache-bench-{os.geteuid()}"
    return next((folder for folder in (*_user_folders(), temporary) if not _problem(folder)), None)


@cache
def _sources() -> str:
    """Returns a digest of all sources of compiled code; Numba itself sees changes of the file with the loop alone."""
    here = Path(__file__).parent
    machine = [here.parent / "recording" / name for name in ("machine.py", "opcodes.py", "rows.py", "fused_rows.py")]
    contents = b"".join(path.read_bytes() for path in [*sorted(here.glob("*.py")), *machine])
    return hashlib.blake2b(contents, digest_size=8).hexdigest()


def _user_folders() -> Iterator[Path]:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - leaves `~` if homeless
    if Path(home).is_absolute():
        yield Path(home) / "mpcache-bench" / "compiled"


def _problem(folder: Path) -> str | None:
    """Creates the folder; returns why it cannot hold code, or None."""
    try:
        folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode):
            return "it is a link, which may lead anywhere"
        if found.st_uid != os.geteuid():
            return f"it belongs to user {found.st_uid}, and you are {os.geteuid()}"
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return "others than its owner can write to it"
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return f"it cannot be written ({error.strerror})"
    return None


@contextmanager
def _cached_in(folder: Path | None) -> Iterator[bool]:
    """Lets Numba cache in the folder meanwhile; gives whether there is one."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder or "")
    try:
        yield folder is not None
    finally:
        numba.config.CACHE_DIR = before
