"""Writes the files of a training atomically, with errors that name the option."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from orchestrator.records.atomic import replacing
from orchestrator.training.settings import TrainingError

_READABLE = 0o644


def check_folder(path: Path) -> None:
    """Checks that a file can be written.

    Args:
        path: The file.

    Raises:
        TrainingError: Its folder cannot be written.
    """
    try:
        path.exists()  # its name may be too long
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise _refusal(path, error) from None


def write_file(path: Path, write: Callable[[Path], None]) -> None:
    """Writes a file atomically: an interruption leaves the old one.

    Args:
        path: The file.
        write: Writes the content to the path that it receives.

    Raises:
        TrainingError: The folder cannot be written.
    """
    try:
        with replacing(path, mode=_READABLE) as draft:
            write(draft)
    except OSError as error:
        raise _refusal(path, error) from None


def _refusal(path: Path, error: OSError) -> TrainingError:
    return TrainingError(f"out: cannot write {path}: {error.strerror}; choose another file")
