"""Text files from the user: UTF-8 with or without a byte order mark, or refused without quoting their content.

A prompt is secret, so neither the content of a file nor a value that may itself be a prompt ever appears in a message.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

LFS_POINTER = "it is a Git LFS pointer, not the file itself; run git lfs pull in its clone"
NOT_SHOWN = "(not shown: it looks like a text, not like a path)"

_LFS_MARK = b"version https://git-lfs.github.com/spec/"
# No white space, and a slash among ASCII characters or an ASCII suffix. A sentence in any script has neither.
_PATH = re.compile(r"(?a:[\w.~+@-]*/[\w./~+@-]*)|[\w./~+@-]+\.[A-Za-z][A-Za-z0-9]{0,7}")
_LONGEST_NAME = 255  # bytes of a file name on Linux


class Unreadable(Exception):  # noqa: N818 - named after the condition
    """A file cannot be read as text; the message gives the reason, but neither the path nor any of the content."""


def read_text(path: Path) -> str:
    """The whole text of a file.

    Raises:
        Unreadable: The file does not exist, may not be read, is not UTF-8, or is a Git LFS pointer.
    """
    with reading(path) as file:
        return file.read()


@contextmanager
def reading(path: Path) -> Iterator[TextIO]:
    """A text file, open for the body of a `with` statement.

    Raises:
        Unreadable: As in `read_text`, also while the body reads.
    """
    if is_lfs_pointer(path):
        raise Unreadable(LFS_POINTER)
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield file
    except OSError as error:
        raise Unreadable(error.strerror or type(error).__name__) from None
    except UnicodeDecodeError:
        raise Unreadable("it is not UTF-8 text") from None
    except ValueError:  # of `open`: a NUL in the path
        raise Unreadable("its path holds a NUL character") from None


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is a placeholder that `git lfs pull` would replace; False if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(_LFS_MARK)) == _LFS_MARK
    except (OSError, ValueError):
        return False


def looks_like_path(value: str) -> bool:
    """Whether a value is certainly a path: one word with a slash or a suffix, and no name too long for a file."""
    longest = max(len(name.encode(errors="replace")) for name in value.split("/"))
    return _PATH.fullmatch(value) is not None and longest <= _LONGEST_NAME


def shown(value: str | Path) -> str:
    """A path for a message; a value that does not look like a path, and so may be a prompt, is replaced."""
    return str(value) if looks_like_path(str(value)) or _exists(Path(value)) else NOT_SHOWN


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
