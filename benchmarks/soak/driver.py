"""One call of `mpcache-bench run`, with all processes that it has started."""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

COMMAND = Path(sys.executable).with_name("mpcache-bench")
_SCRATCH = re.compile(r"/tmp/mpcbench-[^/\s]+")  # noqa: S108 - folders of Ray, which killed drivers leave


@dataclass
class Traces:
    """Resources of this machine that runs were observed to use.

    Attributes:
        processes: All processes.
        networks: Network namespaces, except that of the soak.
        folders: Folders of their Ray clusters.
    """

    processes: set[psutil.Process] = field(default_factory=set)
    networks: set[str] = field(default_factory=set)
    folders: set[Path] = field(default_factory=set)

    def note(self, root: psutil.Process) -> list[psutil.Process]:
        """Records a process and its descendants; returns those that are alive, the root first."""
        try:
            living = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
        own = network_of(psutil.Process())
        for process in set(living) - self.processes:
            self.networks |= {network_of(process)} - {own, ""}
            with contextlib.suppress(psutil.Error):
                self.folders |= set(map(Path, _SCRATCH.findall(" ".join(process.cmdline()))))
        self.processes |= set(living)
        return living


def network_of(process: psutil.Process) -> str:
    """The network namespace of a process; empty if it has exited."""
    try:
        return str(Path(f"/proc/{process.pid}/ns/net").readlink())
    except OSError:
        return ""


class Driver:
    """A running driver.

    Args:
        options: Arguments of `mpcache-bench run`.
        log: File for its output.
        environment: Its environment variables.
        traces: Records all its processes.
    """

    def __init__(self, options: Sequence[str], log: Path, environment: dict[str, str], traces: Traces) -> None:
        self._traces = traces
        with log.open("wb") as output:
            self.process = psutil.Popen(
                [str(COMMAND), "run", *options],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def family(self) -> list[psutil.Process]:
        """The driver and its running descendants."""
        return self._traces.note(psutil.Process(self.process.pid)) if self.process.poll() is None else []

    def wait(self, seconds: float) -> int | None:
        """The exit status; None if the driver still runs after `seconds`."""
        stop = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < stop:
            self.family()
            time.sleep(0.5)
        status: int | None = self.process.poll()
        return status

    def end(self) -> None:
        """Kills the driver and all its descendants."""
        for process in reversed(self.family()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
