"""Files that are there whole or not at all."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from orchestrator.records.atomic import replacing
from orchestrator.training.settings import TrainingError

_READABLE = 0o644


def check_folder(path: Path) -> None:
    """Whether a file could be written.

    Args:
        path: The file.

    Raises:
        TrainingError: Its folder takes none.
    """
    try:
        path.exists()  # its name may be too long
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise _refusal(path, error) from None


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Writes a file in one step: an interruption leaves the old one.

    Args:
        path: The file.
        write: Writes to the path that it is given.

    Raises:
        TrainingError: The folder takes no file.
    """
    try:
        with replacing(path, mode=_READABLE) as draft:
            write(draft)
    except OSError as error:
        raise _refusal(path, error) from None


def _refusal(path: Path, error: OSError) -> TrainingError:
    return TrainingError(f"out: cannot write {path}: {error.strerror}; choose another file")
