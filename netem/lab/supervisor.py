"""The process of a lab: creates the hosts, forwards requests to them, and ends them when it exits.

Run as `python -m netem.lab.supervisor`, with the fields of `Plan` as JSON on standard input. It listens on a Unix
socket, where a client writes lines of JSON `{"host", "verb", "given"}`, each answered with `{"answer"}` or `{"error"}`.
Everything that a client requested is undone when its connection closes, also when the client is killed.
"""

import contextlib
import json
import os
import secrets
import signal
import socketserver
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from netem.errors import NetemError
from netem.lab.links import cable
from netem.process import Child, command
from netem.profile import NetworkProfile
from netem.shaping import shape
from netem.state import started, write_whole

HUB = "hub"
# TCP ports that a lab with its own network shapes; all other traffic, in particular Ray's, is not shaped.
DATA_PORTS = range(7168, 7232)
OF_THE_HOST = (Path("/tmp"), Path("/dev/shm"))  # noqa: S108 - each host has its own
"""Folders of which each host has its own."""
_PREFIX = 24
_NAMESPACES = ("--mount", "--propagation", "private", "--net", "--pid", "--ipc", "--uts")


@dataclass(frozen=True)
class Plan:
    """Parameters of a new lab.

    Attributes:
        id: Part of every name, so that labs do not collide.
        addresses: Address of each host, by name.
        shm_mb: Size of the `/dev/shm` of each host, in MiB.
        keep: Folders that are visible on the hosts even if they lie in `/tmp`.
        detached: Whether the lab stays up when its creator exits.
        network: Profile of the links, from `NetworkProfile.to_mapping`; it applies to `DATA_PORTS` of all hosts.
        folder: Folder of the state file and of the socket.
    """

    id: str
    addresses: dict[str, str]
    shm_mb: int
    keep: list[str]
    detached: bool
    network: dict[str, Any]
    folder: str

    @property
    def state(self) -> Path:
        """The state file, by which clients find the lab."""
        return Path(self.folder) / f"{self.id}.json"

    @property
    def socket(self) -> Path:
        """The Unix socket of the supervisor."""
        return Path(self.folder) / f"{self.id}.sock"


class Machine:
    """A host, as its supervisor sees it.

    Args:
        name: Full name of the host, with the id of the lab.
        plan: Parameters of the lab.

    Attributes:
        pid: First process of the host, in the pid namespace of the supervisor; gives access to its namespaces.
    """

    def __init__(self, name: str, plan: Plan) -> None:
        # Killing any process of the chain kills all that follow; the last is the first process of the host, and the
        # whole host ends with it.
        chain = ["setpriv", "--pdeathsig", "KILL", "unshare", *_NAMESPACES, "--fork", "--kill-child", "--mount-proc"]
        self._child = Child(
            [*chain, *command("netem.lab.inside")], {"name": name, "shm_mb": plan.shm_mb, "keep": plan.keep}
        )
        children = Path(f"/proc/{self._child.pid}/task/{self._child.pid}/children")
        self.pid = int(children.read_text(encoding="ascii").split()[0])
        self._lock = threading.Lock()

    def ask(self, session: str, verb: str, given: dict[str, Any]) -> dict[str, Any]:
        """Forward a verb to the host; returns its answer or error unchanged."""
        with self._lock:
            return self._child.ask({"session": session, "verb": verb, "given": given})

    def close(self) -> None:
        """End the host."""
        self._child.close()


class Supervisor(socketserver.ThreadingUnixStreamServer):
    """The supervisor of one lab."""

    daemon_threads = True

    def __init__(self, plan: Plan) -> None:
        super().__init__(str(plan.socket), _Session)
        self.plan = plan
        self.machines: dict[str, Machine] = {}
        self.backend = "none"
        self._shaping = contextlib.ExitStack()

    def build(self) -> None:
        """Create the hosts, connect them and shape their links."""
        names = (HUB, *self.plan.addresses)
        for name in names:
            self.machines[name] = Machine(f"mpcb-{self.plan.id}-{name}", self.plan)
        for name in self.plan.addresses:
            cable(self.machines[HUB].pid, name, self.machines[name].pid)
        self.order(HUB, "switch_on", {"ports": list(self.plan.addresses)})
        for name, address in self.plan.addresses.items():
            self.order(name, "plug_in", {"address": address, "prefix": _PREFIX})
        profile = NetworkProfile.from_mapping(self.plan.network)
        endpoints = {name: (address, DATA_PORTS.start) for name, address in self.plan.addresses.items()}
        shaping = shape(profile, endpoints, site=_Within(self), run=f"lab {self.plan.id}", ports=len(DATA_PORTS))
        self.backend = self._shaping.enter_context(shaping).backend
        write_whole(self.plan.state, self.facts())

    def facts(self) -> dict[str, Any]:
        """Description of the lab for its clients."""
        return {
            **asdict(self.plan),
            "pid": os.getpid(),
            "started": started(os.getpid()),
            "backend": self.backend,
            "pids": {name: machine.pid for name, machine in self.machines.items()},
        }

    def tear_down(self) -> None:
        """End all hosts and remove the files of the lab."""
        with contextlib.suppress(NetemError):
            self._shaping.close()
        for machine in self.machines.values():
            machine.close()
        self.server_close()
        for path in (self.plan.state, self.plan.socket):
            path.unlink(missing_ok=True)

    def order(self, name: str, verb: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Perform a verb on a host.

        Raises:
            NetemError: The verb failed.
        """
        answer = self.machines[name].ask("", verb, dict(given))
        if "error" in answer:
            raise NetemError(f"{name}: {answer['error']}")
        return dict(answer["answer"])


class _Within:
    """The lab as a site, for its own supervisor."""

    def __init__(self, lab: Supervisor) -> None:
        self.hub: str | None = HUB
        self._order = lab.order
        self._names = {address: name for name, address in lab.plan.addresses.items()}

    def call(self, host: str, verb: str, given: Mapping[str, Any]) -> dict[str, Any]:
        return self._order(self._names.get(host, host), verb, given)


class _Session(socketserver.StreamRequestHandler):
    """The connection of one client."""

    server: Supervisor

    def handle(self) -> None:
        session = secrets.token_hex(4)
        with contextlib.suppress(ConnectionError):
            for line in self.rfile:
                asked = json.loads(line)
                machine = self.server.machines.get(asked["host"])
                answer = (
                    machine.ask(session, asked["verb"], asked["given"])
                    if machine
                    else {"error": f"host {asked['host']!r} is unknown; use one of {', '.join(self.server.machines)}"}
                )
                self.wfile.write(json.dumps(answer).encode() + b"\n")
        for machine in self.server.machines.values():
            machine.ask(session, "end", {})


def main() -> None:
    """Create the lab, report it, and keep it up until a signal or, unless detached, until the end of standard input."""
    plan = Plan(**json.loads(sys.stdin.readline()))
    if plan.detached and os.fork():
        os._exit(0)
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    lab = Supervisor(plan)
    try:
        lab.build()
        threading.Thread(target=lab.serve_forever, daemon=True).start()
        sys.stdout.write(json.dumps(lab.facts()) + "\n")
        sys.stdout.flush()
        if plan.detached:
            _detach_from_starter()
        else:
            threading.Thread(target=_stop_with_stdin, daemon=True).start()
        signal.sigwait(signals)
    finally:
        lab.tear_down()


def _stop_with_stdin() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _detach_from_starter() -> None:
    """Close the pipes of the starter."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)


if __name__ == "__main__":
    main()
