"""Where a party stores correlated randomness. Imports nothing heavy: a run asks each node for its space first."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

FOLDER_VARIABLE = "MPCBENCH_OFFLINE_DIR"
"""Environment variable: folder of each party's stored randomness."""
_LARGE = "/var/tmp"  # noqa: S108 - files without a name


def folder() -> str:
    """The folder for stored randomness: the variable's, `TMPDIR`, or /var/tmp, since /tmp is often in memory."""
    chosen = os.environ.get(FOLDER_VARIABLE) or os.environ.get("TMPDIR")
    return chosen or (_LARGE if os.access(_LARGE, os.W_OK) else tempfile.gettempdir())


@dataclass(frozen=True)
class Space:
    """Free space of a folder.

    Attributes:
        folder: The folder.
        free: Bytes.
    """

    folder: str
    free: int


def space() -> Space | None:
    """The space for stored randomness on this host; None if there is no such folder, which who writes there reports."""
    here = folder()
    return Space(here, shutil.disk_usage(here).free) if Path(here).is_dir() else None
