"""Ray on a lab: one node per host, so that the same experiment runs on emulated hosts as on a cluster."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from netem import NetemError
from netem.lab import Lab
from orchestrator.experiment.networks import ROLES
from orchestrator.run import niceness
from parties.metering.nvml import VISIBLE, Card, own_cards

_PORT = 6379
_LOG = "/tmp/ray-node.log"  # noqa: S108 - a host's /tmp is its own
_READY_S = 180  # on a busy machine three nodes take long
# Ray gives up a node that has not joined after 30 s, which nothing configures. One that had joined stays lost.
_START = 'for _ in 1 2 3; do "$@"; grep -q "Ray runtime started" "$0" && exit; ray stop --force; done'
# A link that a cell lost is made anew for the next one. By default Ray gives up a host after a minute without answer,
# and no cell could run there any more; a host whose Ray is gone refuses the question and is noticed all the same.
_HEALTH = {"RAY_health_check_timeout_ms": "120000"}
_OBJECT_STORE_BYTES = 100_000_000  # Ray carries jobs and records here, never shares or weights
_WAIT = """
import socket, sys, time
address, count, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
stop = time.monotonic() + seconds
host, _, port = address.partition(":")
while True:
    try:
        socket.create_connection((host, int(port)), 1).close()
        break
    except OSError:
        if time.monotonic() > stop:
            sys.exit("the head does not answer")
        time.sleep(0.05)
import ray
ray.init(address=address, log_to_driver=False, logging_level="ERROR")
while (alive := sum(node["Alive"] for node in ray.nodes())) < count:
    if time.monotonic() > stop:
        sys.exit(f"{alive} of {count} nodes joined")
    time.sleep(0.1)
"""


def head_address(lab: Lab) -> str:
    """`host:port` of the lab's Ray head, which is on its first host."""
    return f"{lab.hosts[0].address}:{_PORT}"


def ray_environment(lab: Lab) -> dict[str, str]:
    """The environment for commands on the lab's hosts that use its Ray.

    Authentication is off whatever this machine's default is: nobody outside can reach the hosts.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    ray = {"RAY_ADDRESS": head_address(lab), "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    return {**lab.environment(), **ray, **_HEALTH, **niceness.settings(), "PATH": path}


def cards_of_hosts(cards: Sequence[Card], hosts: int) -> list[list[Card]]:
    """The GPUs of each host of a lab: all are dealt out in turn; where there are fewer than hosts, some share one.

    The first host, the client's, shares first, with the third, the dealer's.
    """
    if not cards:
        return [[] for _ in range(hosts)]
    return [list(cards[host::hosts]) or [cards[host % len(cards)]] for host in range(hosts)]


def start_ray(lab: Lab, cpus: int | None = None) -> None:
    """Start a Ray node on every host and wait until all have joined.

    The first three hosts are those of the client, the server and the dealer. Each host offers the GPUs that
    `cards_of_hosts` gives it, of those that this process sees.

    Args:
        lab: The lab; taking it down ends Ray too.
        cpus: CPUs that each node offers; an equal share of this machine's, but at least 2, if left out.

    Raises:
        NetemError: They did not join in time; the message holds the last lines of their logs.
    """
    environment = ray_environment(lab)
    share = cpus or max(2, (os.cpu_count() or 2) // len(lab.hosts))
    starting = {key: value for key, value in environment.items() if key != "RAY_ADDRESS"}  # `ray start` refuses it
    roles = dict(zip(lab.hosts, ROLES, strict=False))
    for host, cards in zip(lab.hosts, cards_of_hosts(own_cards().cards, len(lab.hosts)), strict=True):
        options = [f"--node-ip-address={host.address}", f"--num-cpus={share}", "--disable-usage-stats", "--block"]
        options += [f"--object-store-memory={_OBJECT_STORE_BYTES}", f"--num-gpus={len(cards)}"]
        options.append(f"--resources={json.dumps({roles[host]: 1} if host in roles else {})}")
        starting[VISIBLE] = ",".join(card.uuid for card in cards)
        head = ["--head", f"--port={_PORT}", "--include-dashboard=false"]
        options += head if host == lab.hosts[0] else [f"--address={head_address(lab)}"]
        lab.spawn(host.name, ["sh", "-c", _START, _LOG, "ray", "start", *options], _LOG, env=starting)
    wait = [sys.executable, "-c", _WAIT, head_address(lab), str(len(lab.hosts)), str(_READY_S)]
    done = lab.run(lab.hosts[0].name, wait, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise NetemError(f"Ray did not start on the lab; is this machine busy? {done.stderr.strip()}{_logs(lab)}")


def run_in_lab(
    argv: Sequence[str],
    *,
    hosts: int = 3,
    keep: Iterable[Path] = (),
    environment: Mapping[str, str] | None = None,
    descriptors: Sequence[int] = (),
) -> int:
    """Run a command on the first host of a new lab with Ray, then take the lab down.

    The command finds Ray by `RAY_ADDRESS`, and the lab by `netem.lab.attached`.

    Args:
        argv: The command.
        hosts: Number of hosts, a Ray node each.
        keep: Folders that the hosts must see even if they lie in `/tmp`: where results go.
        environment: Further variables for the command.
        descriptors: Open files that the command inherits.

    Returns:
        The command's exit status.

    Raises:
        NetemError: The lab or its Ray could not be started.
    """
    with Lab.up(hosts, keep=keep) as lab:
        start_ray(lab)
        variables = {**ray_environment(lab), **(environment or {})}
        process = lab.popen(lab.hosts[0].name, argv, env=variables, pass_fds=descriptors)
        return _status(process)


def _status(process: "subprocess.Popen[bytes]") -> int:
    """Wait for a command that gets the user's Ctrl-C itself and ends in its own order."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGINT, before)


def _logs(lab: Lab) -> str:
    text = ""
    for host in lab.hosts:
        tail = lab.run(host.name, ["tail", "-n", "5", _LOG], capture_output=True, text=True).stdout
        text += f"\n== {host.name} ==\n{tail}"
    return text
