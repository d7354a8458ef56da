"""Files that are whole or not there: a reader sees the old one or the new one, also after a crash."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, content: str | bytes, *, mode: int | None = None) -> None:
    """Writes a file in one step; see `replacing`.

    Args:
        path: The file.
        content: All of it; text becomes UTF-8.
        mode: Its permissions; those of any new file if left out.

    Raises:
        OSError: The folder takes no such file. What was at the path is still there.
    """
    with replacing(path, mode=mode) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path, *, mode: int | None = None) -> Iterator[Path]:
    """A path to write a draft to, in the same folder; at the end of the block the draft replaces the file.

    Args:
        path: The file.
        mode: Its permissions; those that the draft was made with if left out.

    Raises:
        OSError: The folder takes no such file. What was at the path is still there.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield draft
        if mode is not None:
            draft.chmod(mode)
        sync(draft)
        draft.replace(path)
        sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until a file's content, or a folder's entries, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
