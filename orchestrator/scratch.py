"""The folder in `/tmp` that a Ray of our own lives in: removed at the end, or later if its driver was killed."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Ray puts Unix sockets below its folder, and their paths are limited to 107 bytes: a long TMPDIR would not do.
ROOT = Path("/tmp")  # noqa: S108
_PREFIX = "mpcbench-"
_LOCK = "driver.lock"


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for as long as the block lasts; a lock in it tells that its driver lives."""
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=ROOT))
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def remove_ended() -> list[str]:
    """Remove the folders of drivers that were killed; do it twice and nothing happens.

    Folders that are in use, belong to another user, or hold no lock of ours are left alone.

    Returns:
        What was removed, in words.
    """
    return [f"removed {folder}: its driver is gone" for folder in sorted(ROOT.glob(f"{_PREFIX}*")) if _removed(folder)]


def _removed(folder: Path) -> bool:
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()
    finally:
        os.close(descriptor)
