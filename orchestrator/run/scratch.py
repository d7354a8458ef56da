"""The folder in `/tmp` that a Ray of our own lives in: removed at the end, or later if its driver was killed."""

import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

# Ray puts Unix sockets below its folder, and their paths are limited to 107 bytes: a long TMPDIR would not do.
ROOT = Path("/tmp")  # noqa: S108
_PREFIX = "mpcbench-"
_OURS = re.compile(_PREFIX + r"[a-z0-9_]{8}")  # as `mkdtemp` makes them
_LOCK = "driver.lock"
_SETTLE_S = 3.0  # Ray's processes write until they are gone


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for as long as the block lasts; a lock in it shows that its driver lives."""
    draft = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=ROOT))
    descriptor = os.open(draft / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        folder = draft.rename(ROOT / draft.name.removeprefix("."))  # it is never visible without its lock
        try:
            yield folder
        finally:
            _remove(folder)
    finally:
        os.close(descriptor)


def remove_ended() -> list[str]:
    """Remove the folders of drivers that were killed; do it twice and nothing happens.

    Folders that are in use, belong to another user, or are not known to be ours are left alone.

    Returns:
        What was removed, in words.
    """
    return [f"removed {folder}: its driver is gone" for folder in sorted(ROOT.glob(f"{_PREFIX}*")) if _removed(folder)]


def _removed(folder: Path) -> bool:
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return _is_left_over(folder) and _remove(folder)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return _remove(folder)
    finally:
        os.close(descriptor)


def _is_left_over(folder: Path) -> bool:
    """Whether a folder without a lock is what Ray wrote while ours was removed, and no process uses it any more."""
    try:
        ours = folder.stat(follow_symlinks=False).st_uid == os.geteuid() and _OURS.fullmatch(folder.name)
        if not ours or not any(entry.name.startswith("session_") for entry in folder.iterdir()):
            return False
    except OSError:
        return False
    running = (process.info["cmdline"] for process in psutil.process_iter(["cmdline"]))
    return not any(str(folder) in " ".join(words or ()) for words in running)


def _remove(folder: Path) -> bool:
    """Remove a folder, its lock last: what cannot be removed now is found again."""
    deadline = time.monotonic() + _SETTLE_S
    while _left_after_clearing(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    with suppress(OSError):
        if not _left_after_clearing(folder):
            (folder / _LOCK).unlink(missing_ok=True)
            folder.rmdir()
    return not folder.exists()


def _left_after_clearing(folder: Path) -> list[Path]:
    """Remove what is in a folder but its lock.

    Returns:
        What could not be removed.
    """
    for entry in _entries(folder):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            with suppress(OSError):
                entry.unlink()
    return _entries(folder)


def _entries(folder: Path) -> list[Path]:
    try:
        return [entry for entry in folder.iterdir() if entry.name != _LOCK]
    except OSError:
        return []
