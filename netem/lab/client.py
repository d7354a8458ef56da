"""Creates, finds and uses labs."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from netem.errors import NetemError
from netem.lab.supervisor import HUB, OF_THE_HOST, Plan
from netem.process import Child, command, environment
from netem.profile import NetworkProfile
from netem.state import started, state_dir

_ATTACHED = "MPCACHE_BENCH_LAB"
_MOST_HOSTS = 64
_DOWN_S = 15.0
# All that a lab runs besides Python: interfaces and addresses are set through netlink, links shaped by the relay.
_PROGRAMS = ("setpriv", "unshare", "nsenter", "mount", "setsid")


@dataclass(frozen=True)
class Host:
    """A host of a lab.

    Attributes:
        name: `h0`, `h1`, ...
        address: Its IPv4 address.
        pid: First process of the host, whose namespaces are those of the host.
    """

    name: str
    address: str
    pid: int


class Lab:
    """A running lab, as a `Site` for `netem.shape`. A `with` statement takes it down at the end.

    Args:
        facts: Description of the lab, as its supervisor reported it.

    Attributes:
        id: Part of all names of the lab.
        hosts: Hosts of the lab, without the hub.
        network: Name of the profile of its links.
        backend: Back end that shapes its links.
        hub: Name of the hub, for `call`.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.id: str = facts["id"]
        self.hub: str | None = HUB
        self.pid: int = facts["pid"]
        self.network: str = facts["network"]["name"]
        self.backend: str = facts["backend"]
        self.hosts = tuple(Host(name, ip, facts["pids"][name]) for name, ip in facts["addresses"].items())
        self._facts = facts
        self._names = {host.address: host.name for host in self.hosts}
        self._child: Child | None = None
        self._connection: socket.socket | None = None
        self._replies: Any = None

    @classmethod
    def up(
        cls,
        hosts: int = 3,
        *,
        subnet: str = "10.77.0",
        shm_mb: int = 512,
        keep: Iterable[Path] = (),
        detached: bool = False,
        network: NetworkProfile | None = None,
    ) -> Self:
        """Create a lab.

        Args:
            hosts: Number of hosts, 2 to 64.
            subnet: First three parts of their addresses; isolated from other networks, so there are no conflicts.
            shm_mb: Size of the `/dev/shm` of each host in MiB.
            keep: Folders that are visible on the hosts even if they lie in `/tmp`; those of Python always are.
            detached: Whether the lab stays up when this process exits.
            network: Links between the hosts, for the TCP ports `DATA_PORTS`; not shaped if omitted.

        Raises:
            NetemError: The process is not root, a number is out of range, a program is missing, a folder cannot be
                seen on the hosts, or the kernel refused.
        """
        if not 2 <= hosts <= _MOST_HOSTS:
            raise NetemError(f"hosts: {hosts} is not allowed; give 2 to {_MOST_HOSTS}")
        if os.geteuid() != 0:
            raise NetemError("a lab needs root, for namespaces and raw sockets; without it use the back end `proxy`")
        if missing := [program for program in _PROGRAMS if shutil.which(program) is None]:
            raise NetemError(f"a lab needs {', '.join(missing)}; install the packages util-linux and mount")
        for path in keep:
            if path.resolve() in OF_THE_HOST:
                raise NetemError(
                    f"each host of a lab has a {path} of its own, so what lies in it directly cannot be seen there; "
                    f"move it to a folder below {path}, with all that it refers to"
                )
        here = [path for path in (Path.cwd(),) if path not in OF_THE_HOST]
        folder = state_dir("labs")  # processes on a host find their lab there
        needed = [Path(sys.prefix), Path(__file__).parents[2], *here, folder, *keep]
        plan = Plan(
            id=secrets.token_hex(3),
            addresses={f"h{index}": f"{subnet}.{10 + index}" for index in range(hosts)},
            shm_mb=shm_mb,
            keep=[str(path.resolve()) for path in needed],
            detached=detached,
            network=(network or NetworkProfile("none")).named([f"h{index}" for index in range(hosts)]).to_mapping(),
            folder=str(folder),
        )
        child = Child(command("netem.lab.supervisor"), asdict(plan))
        lab = cls(child.answer)
        if detached:
            child.close()
        else:
            lab._child = child
        return lab

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def call(self, host: str, verb: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """See `netem.host.Site.call`; a host is given by address or name, the hub as `hub`."""
        if self._connection is None:
            self._connection = socket.socket(socket.AF_UNIX)
            self._connection.connect(self.socket)
            self._replies = self._connection.makefile("rb")
        asked = {"host": self._names.get(host, host), "verb": verb, "given": given}
        try:
            self._connection.sendall(json.dumps(asked).encode() + b"\n")
            line = self._replies.readline()
        except OSError as error:
            raise NetemError(f"lab {self.id} is gone: {error}") from error
        if not line:
            raise NetemError(f"lab {self.id} is gone")
        answer = json.loads(line)
        if "error" in answer:
            raise NetemError(f"{host}: {answer['error']}")
        result: dict[str, Any] = answer["answer"]
        return result

    @property
    def socket(self) -> str:
        """Path of the Unix socket of its supervisor."""
        return str(Path(self._facts["folder"]) / f"{self.id}.sock")

    def host(self, name: str) -> Host:
        """The host of a name or address.

        Raises:
            NetemError: There is no such host.
        """
        for host in self.hosts:
            if name in (host.name, host.address):
                return host
        raise NetemError(f"host {name!r} is not in lab {self.id}; use one of {', '.join(h.name for h in self.hosts)}")

    def entering(self, name: str, argv: Sequence[str], cwd: Path | None = None) -> list[str]:
        """The command line that runs `argv` on a host, in all its namespaces."""
        enter = ["nsenter", "--target", str(self.host(name).pid), "--mount", "--net", "--pid", "--ipc", "--uts"]
        return [*enter, "sh", "-c", 'cd "$0" && exec "$@"', str(cwd or Path.cwd()), *argv]

    def environment(self) -> dict[str, str]:
        """The environment for commands on the hosts: they find this lab, and keep their state on their own host."""
        return {**environment(), _ATTACHED: self.socket, "MPCACHE_BENCH_STATE": "/tmp/mpcache-bench"}  # noqa: S108

    def popen(self, name: str, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a command on a host; `options` are those of `subprocess.Popen`."""
        return subprocess.Popen(self.entering(name, argv), **{"env": self.environment(), **options})

    def run(self, name: str, argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        """Run a command on a host to completion; `options` are those of `subprocess.run`."""
        return subprocess.run(self.entering(name, argv), **{"check": False, "env": self.environment(), **options})

    def spawn(self, name: str, argv: Sequence[str], log: str, **options: Any) -> None:
        """Start a detached command on a host; it ends with the host at the latest.

        Args:
            name: Name of the host.
            argv: The command line.
            log: Path on the host for its output.
            options: Options of `subprocess.run`.

        Raises:
            NetemError: The command could not be started.
        """
        leave = ["sh", "-c", 'setsid "$@" >"$0" 2>&1 </dev/null &', log, *argv]
        if self.run(name, leave, **options).returncode != 0:
            raise NetemError(f"{name} cannot start {argv[0]}")

    def disconnect(self) -> None:
        """Close the connection to the lab; the supervisor undoes what was requested on it, and the lab stays up."""
        if self._connection is not None:
            self._replies.close()
            self._connection.close()
            self._connection = None

    def down(self) -> None:
        """Take the lab down: ends all processes on its hosts and removes all interfaces."""
        self.disconnect()
        if self._child is not None:
            self._child.close()
        if self._alive():
            os.kill(self.pid, signal.SIGTERM)
        stop = time.monotonic() + _DOWN_S
        while self._alive():
            if time.monotonic() > stop:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.02)
        _forget(Path(self._facts["folder"]), self.id)

    def _alive(self) -> bool:
        return bool(started(self.pid) == self._facts["started"])


def labs() -> tuple[Lab, ...]:
    """All running labs of this machine. The files of killed labs, their only remains, are removed."""
    found = []
    for path in sorted(state_dir("labs").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError):
            lab = Lab(json.loads(path.read_text(encoding="utf-8")))
            if lab._alive():  # noqa: SLF001
                found.append(lab)
                continue
        _forget(path.parent, path.stem)
    return tuple(found)


def attached() -> Lab | None:
    """The lab on one of whose hosts this process runs, or None."""
    path = os.environ.get(_ATTACHED)
    if path is None:
        return None
    return Lab(json.loads(Path(path).with_suffix(".json").read_text(encoding="utf-8")))


def _forget(folder: Path, lab: str) -> None:
    for suffix in (".json", ".sock"):
        (folder / f"{lab}{suffix}").unlink(missing_ok=True)
