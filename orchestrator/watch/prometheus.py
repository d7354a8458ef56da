"""Configures, starts and stops a Prometheus server of this user that watches all runs on this machine."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from dashboards.prometheus import configuration, scrape_parties
from dashboards.rules import rules
from netem.state import started
from orchestrator.records.user_folders import NoHome, user_folder
from orchestrator.watch.targets import FOLDER_VARIABLE, READABLE, closed_to_others, targets_dir

PORT = 9090
_READY_S = 60.0
_STOP_S = 20.0
_KEEP = "30d"


class ObserveError(Exception):
    """Prometheus is not available; the message names the reason and the fix."""


class NotInstalled(ObserveError):  # noqa: N818 - named for the condition
    """There is no Prometheus on this machine."""


def default_folder() -> Path:
    """Where configuration and data go: `mpcache-bench/prometheus` in the user's folder for state.

    Raises:
        ObserveError: The user has no such folder.
    """
    try:
        return user_folder("XDG_STATE_HOME", ".local/state") / "prometheus"
    except NoHome as error:
        raise ObserveError(f"{error}, or give --folder") from None


@dataclass(frozen=True)
class Prometheus:
    """One Prometheus server.

    Attributes:
        folder: Its configuration, data, log and process id.
        port: Its port on loopback.
    """

    folder: Path
    port: int = PORT

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def configuration(self) -> Path:
        """Its configuration file."""
        return self.folder / "prometheus.yml"

    @property
    def rules(self) -> Path:
        """Its rule file."""
        return self.folder / "rules.yml"

    @property
    def log(self) -> Path:
        """Its log file."""
        return self.folder / "prometheus.log"

    def write(self, ray: str, stall_seconds: float) -> None:
        """Write configuration and rules.

        Args:
            ray: Address of Ray's dashboard; empty for none.
            stall_seconds: See `dashboards.rules.rules`.

        Raises:
            ObserveError: A value is not allowed, or the folder cannot be written.
        """
        try:
            if not self.folder.exists():
                self.folder.mkdir(parents=True)
                self.folder.chmod(0o755)
            texts = {
                self.rules: rules(stall_seconds),
                self.configuration: configuration(targets_dir() / "*.json", [self.rules], ray),
            }
            for path, values in texts.items():
                path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
                path.chmod(READABLE)
        except ValueError as error:
            raise ObserveError(str(error)) from error
        except OSError as error:
            raise ObserveError(f"{self.folder} cannot be written: {error.strerror}; choose another --folder") from error

    def start(self, *, detach: bool) -> "subprocess.Popen[bytes]":
        """Start the server and wait until it answers.

        Args:
            detach: Whether it stays when this process and its terminal go.

        Raises:
            ObserveError: It is not installed, its port is taken, or it did not come up.
        """
        binary = shutil.which("prometheus")
        if binary is None:
            raise NotInstalled("prometheus is not installed; Debian and Ubuntu: apt-get install prometheus")
        if (other := running(self.folder)) is not None:
            raise ObserveError(f"it is up already, at {other['url']}; `mpcache-bench observe down` ends it")
        self._require_port()
        options = {
            "config.file": self.configuration,
            "storage.tsdb.path": self.folder / "data",
            "storage.tsdb.retention.time": _KEEP,
            "web.listen-address": f"127.0.0.1:{self.port}",
        }
        command = [binary, *(f"--{name}={value}" for name, value in options.items())]
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=detach
            )
        try:
            self._await_ready(process)
        except BaseException:
            stop(process)
            raise
        state = {"pid": process.pid, "started": started(process.pid), "url": self.url}
        _state(self.folder).write_text(json.dumps(state), encoding="utf-8")
        return process

    def _require_port(self) -> None:
        try:
            socket.create_server(("127.0.0.1", self.port)).close()
        except (OSError, OverflowError) as error:
            raise ObserveError(
                f"port {self.port} on 127.0.0.1 cannot be used: {error}; give another one with --port, or add the runs "
                f"to the Prometheus that runs there with --no-start"
            ) from error

    def _await_ready(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise ObserveError(f"prometheus ended at once:\n{self._log_tail()}")
            if _answers(f"{self.url}/-/ready"):
                return
            time.sleep(0.1)
        raise ObserveError(f"prometheus does not answer at {self.url} after {_READY_S:g} s:\n{self._log_tail()}")

    def _log_tail(self) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])


def running(folder: Path) -> dict[str, Any] | None:
    """`pid`, `started` and `url` of the server of a folder; None if it does not run."""
    try:
        state: dict[str, Any] = json.loads(_state(folder).read_text(encoding="utf-8"))
        return state if started(state["pid"]) == state["started"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def down(folder: Path) -> bool:
    """End the server of a folder; False if there was none.

    Raises:
        ObserveError: Its file cannot be removed.
    """
    state = running(folder)
    if state is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            _end(psutil.Process(state["pid"]))
    try:
        _state(folder).unlink(missing_ok=True)
    except OSError as error:
        raise ObserveError(f"cannot remove {_state(folder)}: {error.strerror}; look at --folder") from error
    return state is not None


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a server that this process started, so that its data is whole."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def targets(url: str) -> list[dict[str, Any]]:
    """The active scrape targets of a server.

    Raises:
        ObserveError: It does not answer.
    """
    try:
        with urllib.request.urlopen(f"{url}/api/v1/targets?state=active", timeout=5) as answer:  # noqa: S310 - ours
            found: list[dict[str, Any]] = json.load(answer)["data"]["activeTargets"]
            return found
    except (OSError, ValueError, KeyError) as error:
        raise ObserveError(f"{url} does not answer as Prometheus does: {error}") from error


def to_add(rules_file: Path) -> str:
    """Configuration to add to another Prometheus so that it watches these runs, and the user that it must run as."""
    jobs = {
        "rule_files": [str(rules_file.resolve())],
        "scrape_configs": [scrape_parties(targets_dir() / "*.json")],
    }
    return "".join(_closed(rules_file.resolve())) + yaml.safe_dump(jobs, sort_keys=False)


def _closed(rules_file: Path) -> Iterator[str]:
    """Comments on the paths that only this user can read."""
    fixes = {
        rules_file: "--folder such as /var/lib/mpcache-bench writes the rules elsewhere",
        targets_dir(): f"{FOLDER_VARIABLE}, for runs as well, names another folder",
    }
    for path, fix in fixes.items():
        if place := closed_to_others(path):
            yield f"# {place} is closed to other users: run that Prometheus as uid {os.geteuid()}, or: {fix}\n"


def _end(process: psutil.Process) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except psutil.TimeoutExpired:
        process.kill()


def _state(folder: Path) -> Path:
    return folder / "running.json"


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):  # noqa: S310 - our own server
            return True
    except (OSError, urllib.error.URLError):
        return False
