"""One call of `mpcache-bench run`, with all the processes it ever started."""

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
_SCRATCH = re.compile(r"/tmp/mpcbench-[^/\s]+")  # noqa: S108 - where Ray's folders of killed drivers are


@dataclass
class Traces:
    """What runs have been seen to use of this machine.

    Attributes:
        processes: Every process seen.
        networks: Network namespaces seen, other than the soak's own.
        folders: Folders of their Rays.
    """

    processes: set[psutil.Process] = field(default_factory=set)
    networks: set[str] = field(default_factory=set)
    folders: set[Path] = field(default_factory=set)

    def note(self, root: psutil.Process) -> list[psutil.Process]:
        """Look at a process and all below it; those that live are returned, the root first."""
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
    """The network namespace of a process; empty once it has ended."""
    try:
        return str(Path(f"/proc/{process.pid}/ns/net").readlink())
    except OSError:
        return ""


class Driver:
    """A driver that runs.

    Args:
        options: What follows `mpcache-bench run`.
        log: Gets its output.
        environment: Its environment.
        traces: Told of all its processes.
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
        """The driver and what runs below it now."""
        return self._traces.note(psutil.Process(self.process.pid)) if self.process.poll() is None else []

    def wait(self, seconds: float) -> int | None:
        """The exit status; None if it still runs after that time."""
        stop = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < stop:
            self.family()
            time.sleep(0.5)
        status: int | None = self.process.poll()
        return status

    def end(self) -> None:
        """Kill it and all below it."""
        for process in reversed(self.family()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
