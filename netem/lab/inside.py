"""Sets up the host in new namespaces: its name, its own `/tmp` and `/dev/shm`, and a process that performs verbs.

Run as `python -m netem.lab.inside` by `unshare` as the first process of a host. Each line of JSON on standard input
gets one reply on standard output; the first is `{"name", "shm_mb", "keep": [paths]}`. At the end of standard input the
host ends with all its processes.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from netem.errors import NetemError
from netem.host import HostService
from netem.lab.hub import HubService, Switch
from netem.lab.links import plug_in, prepare
from netem.lab.supervisor import OF_THE_HOST

_TMP_MB = 4096


class Inside:
    """The verbs of a host of a lab: its own, and those of `HostService`, with one service per session."""

    def __init__(self) -> None:
        self._services: dict[str, HostService] = {}
        self._switch: Switch | None = None

    def perform(self, session: str, verb: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Perform one verb; `end` undoes everything that a session has done."""
        match verb:
            case "plug_in":
                plug_in(**given)
            case "switch_on":
                self._switch = Switch(given["ports"])
            case "end":
                if service := self._services.pop(session, None):
                    service.close()
            case _:
                if session not in self._services:
                    self._services[session] = HubService(self._switch) if self._switch else HostService()
                return self._services[session].perform(verb, given)
        return {}


def main() -> None:
    """Run as the first process of the host, and perform the verbs in a second one."""
    first = json.loads(sys.stdin.readline())
    socket.sethostname(first["name"])
    with _kept([Path(path) for path in first["keep"]]):
        _mount_private("/tmp", _TMP_MB)  # noqa: S108
        _mount_private("/dev/shm", first["shm_mb"])  # noqa: S108
    os.environ["MPCACHE_BENCH_STATE"] = "/tmp/mpcache-bench"  # noqa: S108 - leases belong to the host
    prepare()
    worker = os.fork()
    if worker == 0:
        _serve()
        return
    with contextlib.suppress(ChildProcessError):
        while os.wait()[0] != worker:  # the first process of a pid namespace reaps its orphans
            pass
    os._exit(0)


def _serve() -> None:
    inside = Inside()
    _reply({})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            _reply({"answer": inside.perform(request["session"], request["verb"], request["given"])})
        except Exception as error:  # noqa: BLE001 - every error goes back to the caller
            known = isinstance(error, NetemError)
            _reply({"error": str(error) if known else f"{type(error).__name__}: {error}"})


def _reply(answer: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _mount_private(path: str, size_mb: int) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=1777", "tmpfs", path], check=True)


@contextlib.contextmanager
def _kept(paths: list[Path]) -> Iterator[None]:
    """Keep folders visible on the host that lie below a path which becomes private."""
    hidden = [path for path in paths if any(path.is_relative_to(private) for private in OF_THE_HOST)]
    held = [(path, os.open(path, os.O_PATH)) for path in hidden]
    yield
    for path, descriptor in held:
        path.mkdir(parents=True, exist_ok=True)
        # Not canonicalised: the path of the folder now names the empty folder on which it is mounted.
        source = f"/proc/self/fd/{descriptor}"
        mount = ["mount", "--no-canonicalize", "--bind", source, str(path)]
        subprocess.run(mount, check=True, pass_fds=[descriptor])
        os.close(descriptor)


if __name__ == "__main__":
    main()
