"""The Prometheus target files of a run: which exporters to scrape, for `file_sd_configs`."""

import contextlib
import json
import logging
import os
import socket
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from netem.state import state_dir
from orchestrator.records.atomic import write_atomically
from parties.metering.registry import DRIVER

Address = tuple[str, int]

FOLDER_VARIABLE = "MPCACHE_BENCH_TARGETS"
READABLE = 0o644
"""Mode of the files that a Prometheus of another user reads, whatever the umask is."""

_CONNECT_S = 1.0
_READ, _ENTER = 0o004, 0o001  # what users other than the owner and its group may do

log = logging.getLogger(__name__)


def targets_dir() -> Path:
    """The folder for the target files of all runs of this user on this machine, for `mpcache-bench observe up`.

    `$MPCACHE_BENCH_TARGETS`, else `targets` in the folder of `netem.state.state_dir`. All users may read the latter,
    since a system's Prometheus has a user of its own. The files name runs and ports, and contain no secret.
    """
    if given := os.environ.get(FOLDER_VARIABLE):
        return Path(given)
    folder = state_dir("targets")
    for path, mode in ((folder, 0o755), (folder.parent, 0o711)):
        with contextlib.suppress(PermissionError):  # another user owns it
            path.chmod(stat.S_IMODE(path.stat().st_mode) | mode)
    return folder


def closed_to_others(path: Path) -> Path | None:
    """The file or folder that keeps other users from reading `path`: itself or a folder above it; None if none does."""
    own = _READ | _ENTER if path.is_dir() else _READ
    for place, needed in ((path, own), *((above, _ENTER) for above in path.absolute().parents)):
        if place.exists() and place.stat().st_mode & needed != needed:
            return place
    return None


class TargetFile:
    """Identical `file_sd` files that name the exporters of a run, and are removed at its end.

    Prometheus reads a file whenever it changes, so each version replaces the last one in a single rename. A file that
    cannot be written causes one warning: a run never fails because it cannot be watched.

    Args:
        paths: The files; Prometheus requires the suffix `.json`. Missing folders are created.
        run: Value of the label `run`, a unique name.
        driver: The driver's exporter; None if there is none.
        relayed: Whether the driver serves the metrics of each role below `/ROLE`, since only it can reach their hosts.
    """

    def __init__(
        self, paths: Sequence[Path], run: str, driver: Address | None = None, *, relayed: bool = False
    ) -> None:
        self._paths = list(paths)
        self._run = run
        self._driver = driver
        self._relayed = relayed
        self.exporters: Mapping[str, Address] = {}

    def write(self, exporters: Mapping[str, Address]) -> None:
        """Name the exporters of all parties: role to host and port."""
        self.exporters = dict(exporters)
        groups = [self._group(role, *address) for role, address in self.exporters.items()]
        if self._driver is not None:
            groups.append({"targets": [_authority(*self._driver)], "labels": self._labels(DRIVER)})
        text = json.dumps(groups, indent=2) + "\n"
        for path in list(self._paths):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, text, mode=READABLE)
            except OSError as error:
                self._paths.remove(path)
                log.warning(
                    "cannot write %s, a Prometheus that reads it will not scrape this run: %s", path, error.strerror
                )

    def remove(self) -> None:
        """Removes the parties; the driver stays, if there is one."""
        if self._driver is not None:
            self.write({})
        else:
            self._unlink()

    def __enter__(self) -> Self:
        if self._driver is not None:
            self.write({})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unlink()

    def _unlink(self) -> None:
        for path in self._paths:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _group(self, role: str, host: str, port: int) -> dict[str, Any]:
        if self._relayed and self._driver is not None:
            path = {"__metrics_path__": f"/{role}/metrics"}
            return {"targets": [_authority(*self._driver)], "labels": self._labels(role) | path}
        return {"targets": [_authority(host, port)], "labels": self._labels(role)}

    def _labels(self, party: str) -> dict[str, str]:
        return {"run": self._run, "party": party}


def forget_ended(folder: Path) -> list[str]:
    """Remove the target files of runs whose driver was killed: its exporter does not answer any more.

    Returns:
        Names of the runs that were forgotten.
    """
    ended = []
    for path in sorted(folder.glob("*.json")):
        try:
            groups = json.loads(path.read_text(encoding="utf-8"))
            (driver,) = (group for group in groups if group["labels"]["party"] == DRIVER)
            alive = _answers(driver["targets"][0])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # it has just gone, or is not ours
        if not alive:
            path.unlink(missing_ok=True)
            ended.append(str(driver["labels"]["run"]))
    return ended


def _answers(authority: str) -> bool:
    host, _, port = authority.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return True  # a host that cannot be reached now may come back
    return True


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
