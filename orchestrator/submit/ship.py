"""What a cluster needs of this machine to run an experiment: the code, the experiment file and its prompt files."""

import shutil
import subprocess
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from orchestrator.problems import ConfigError, Problem

EXPERIMENT = "submitted/experiment.yaml"
"""Path of the experiment file in the shipped folder; prompt files keep their place beside it."""

_PACKAGES = ("orchestrator", "parties", "netem", "dashboards")
_ROOT = Path(__file__).resolve().parents[2]


def ship(file: Path, folder: Path) -> None:
    """Copy the code and the experiment into `folder`.

    In a clone only what git tracks is copied; otherwise the installed packages are.

    Raises:
        ConfigError: A prompt file lies outside the folder of the experiment file, or is not there.
    """
    for path in _code():
        _copy(_ROOT / path, folder / path)
    target = folder / EXPERIMENT
    _copy(file, target)
    for name in _text_files(yaml.safe_load(file.read_text(encoding="utf-8"))):
        source = file.parent / name
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or not source.is_file():
            allowed = "a file in the folder of the experiment file, or below"
            fix = "copy it there and name it relative to that folder"
            raise ConfigError(str(file), [Problem("prompt.text_file", name, allowed, fix)])
        _copy(source, target.parent / name)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _code() -> list[Path]:
    """Paths of the code's files, relative to the folder that holds the packages."""
    if (_ROOT / ".git").exists():
        command = ["git", "-C", str(_ROOT), "ls-files", "-z", "--", *_PACKAGES]
        listed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        return [Path(name) for name in listed.split("\0") if name and (_ROOT / name).is_file()]
    found = (path for package in _PACKAGES for path in (_ROOT / package).rglob("*") if path.is_file())
    return [path.relative_to(_ROOT) for path in found if "__pycache__" not in path.parts]


def _text_files(told: Any) -> set[str]:
    """Every `text_file` of an experiment, wherever it stands."""
    if isinstance(told, dict):
        own = {value for key, value in told.items() if key == "text_file" and isinstance(value, str)}
        return own.union(*(_text_files(value) for value in told.values()))
    return set().union(*map(_text_files, told)) if isinstance(told, list) else set()
