"""Collects the files that a cluster needs to run an experiment: the code, the experiment file and its prompt files."""

import importlib.util
import shutil
import subprocess
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from orchestrator.experiment.problems import ConfigError, Problem
from orchestrator.submit.follow import JobError

EXPERIMENT = "submitted/experiment.yaml"
"""Path of the experiment file in the shipped folder; prompt files keep their places relative to it."""

_PROMPT_KEYS = ("text_file", "messages")
_PACKAGES = ("orchestrator", "parties", "netem", "dashboards")
_NOT_CODE = {"__pycache__", "node_modules"}  # what an installation or a clone adds to the code
LIMIT_BYTES = 100 * 2**20
"""Ray's limit for the body of a request, `ray_constants.DASHBOARD_CLIENT_MAX_SIZE`."""

_HEADER_BYTES = 300  # of a file in the archive: its name twice, and 76 bytes
_ROOT = Path(__file__).resolve().parents[2]


def ship(file: Path, folder: Path) -> None:
    """Copy the code and the experiment into `folder`.

    In a clone only what git tracks is copied; otherwise, or where there is no git, the installed packages are. A policy
    named as `module:Class` brings its module along, or the whole package that the module is in; what these import in
    turn must be installed on the cluster.

    Raises:
        ConfigError: A prompt file is outside the folder of the experiment file, or does not exist.
        JobError: Git does not list what it tracks, or all is more than a cluster takes.
    """
    for path in _code():
        _copy(_ROOT / path, folder / path)
    target = folder / EXPERIMENT
    _copy(file, target)
    given = yaml.safe_load(file.read_text(encoding="utf-8"))
    for source in map(_source_of, _modules(given)):
        _copy_tree(source, folder / source.name)
    for key, name in sorted(_prompt_files(given)):
        source = file.parent / name
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or not source.is_file():
            allowed = "a file in the folder of the experiment file, or below"
            fix = "copy it there and name it relative to that folder"
            raise ConfigError(str(file), [Problem(f"prompt.{key}", name, allowed, fix)])
        _copy(source, target.parent / name)
    _require_size(folder)


def _require_size(folder: Path) -> None:
    """Refuse what Ray would refuse, before it is sent as one archive, not compressed."""
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    total = shipped_bytes(folder)
    if total > LIMIT_BYTES:
        largest = max(sizes, key=lambda path: sizes[path])
        raise JobError(
            f"what is to be shipped has {total / 1e6:.1f} MB, and Ray takes {LIMIT_BYTES / 1e6:.1f} MB; the largest "
            f"file is {largest.relative_to(folder)} with {sizes[largest] / 1e6:.1f} MB: shorten it, or copy the folder "
            f"to the head by hand and run it there"
        )


def shipped_bytes(folder: Path) -> int:
    """About the size of a folder as Ray sends it, and no less."""
    return sum(path.stat().st_size + _HEADER_BYTES for path in folder.rglob("*"))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _code() -> list[Path]:
    """Paths of the code's files, relative to the folder that holds the packages."""
    if (_ROOT / ".git").exists() and shutil.which("git"):
        command = ["git", "-C", str(_ROOT), "ls-files", "-z", "--", *_PACKAGES]
        done = subprocess.run(command, capture_output=True, check=False, text=True)
        if done.returncode:
            raise JobError(f"git cannot list the code that is to be shipped: {' '.join(done.stderr.split())}")
        return [Path(name) for name in done.stdout.split("\0") if name and (_ROOT / name).is_file()]
    found = (path for package in _PACKAGES for path in (_ROOT / package).rglob("*") if path.is_file())
    return [path.relative_to(_ROOT) for path in found if not _NOT_CODE & set(path.parts)]


def _modules(given: Any) -> set[str]:
    """The top-level modules of policies named as `module:Class`, those of this project aside."""
    policies = given.get("policies", ()) if isinstance(given, dict) else ()
    names = [policy.get("name", "") if isinstance(policy, dict) else policy for policy in policies]
    return {str(name).partition(":")[0].partition(".")[0] for name in names if ":" in str(name)} - {*_PACKAGES}


def _source_of(module: str) -> Path:
    """The file of a module, or the folder of a package.

    Raises:
        JobError: There is neither on this machine.
    """
    spec = importlib.util.find_spec(module)
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    if spec is None or not spec.has_location or spec.origin is None:
        raise JobError(f"the policy's module {module} has no file to ship; install it on every node of the cluster")
    return Path(spec.origin)


def _copy_tree(source: Path, target: Path) -> None:
    """Copy a file, or all of a folder that is code."""
    if source.is_file():
        _copy(source, target)
        return
    for path in source.rglob("*"):
        if path.is_file() and not _NOT_CODE & set(path.parts):
            _copy(path, target / path.relative_to(source))


def _prompt_files(given: Any) -> set[tuple[str, str]]:
    """Every `text_file` and file of `messages` of an experiment, at any place."""
    if isinstance(given, dict):
        own = {(key, value) for key, value in given.items() if key in _PROMPT_KEYS and isinstance(value, str)}
        return own.union(*(_prompt_files(value) for value in given.values()))
    return set().union(*map(_prompt_files, given)) if isinstance(given, list) else set()
