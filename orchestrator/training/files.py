"""Files that are there whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from orchestrator.training.settings import TrainingError


def check_folder(path: Path) -> None:
    """Whether a file could be written.

    Args:
        path: the file.

    Raises:
        TrainingError: its folder takes none.
    """
    try:
        path.exists()  # its name may be too long
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise _refusal(path, error) from None


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Writes a file beside `path` and moves it there, so that an interruption leaves what was there before.

    Args:
        path: the file.
        write: writes to the path that it is given.

    Raises:
        TrainingError: the folder takes no file.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(descriptor)
        fresh = Path(name)
        try:
            write(fresh)
            fresh.chmod(0o644)
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as error:
        raise _refusal(path, error) from None


def _refusal(path: Path, error: OSError) -> TrainingError:
    return TrainingError(f"out: cannot write {path}: {error.strerror}; choose another file")
