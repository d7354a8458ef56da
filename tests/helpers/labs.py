"""Helpers of the tests of the lab."""

import contextlib
import subprocess
import sys
from typing import Any

import psutil

from netem import NetworkProfile, Tolerance
from netem.lab import Lab
from netem.prober import Address

NAMES = ("client", "server", "dealer")
CLEAN = "from netem.janitor import clean; print(*clean(), sep='\\n', end='')"
# Beyond the disturbances of a shared machine, and close enough to distinguish the profiles.
TOLERANCE = Tolerance(rtt_ms=8, rtt_pct=25, rate_pct=50)


def endpoints(lab: Lab, port: int = 7000) -> dict[str, Address]:
    return {name: (host.address, port) for name, host in zip(NAMES, lab.hosts, strict=False)}


def out(lab: Lab, host: str, *argv: str) -> str:
    return lab.run(host, argv, capture_output=True, text=True, check=False).stdout.strip()


def sent_bytes(lab: Lab, host: str) -> int:
    """Bytes that a host's interface has sent. /sys would show the interfaces of whoever mounted it."""
    (line,) = (line for line in out(lab, host, "cat", "/proc/net/dev").splitlines() if line.strip().startswith("eth0:"))
    return int(line.partition(":")[2].split()[8])


def python(lab: Lab, host: str, script: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return lab.run(host, [sys.executable, "-c", script], capture_output=True, text=True, **options)


def seen_by_the_machine() -> list[str]:
    """The output of `ip` and `tc` on this machine, without counters."""
    commands = (["ip", "-o", "link"], ["ip", "netns"], ["ip", "-o", "addr"], ["tc", "qdisc"])
    return [subprocess.run(command, capture_output=True, text=True, check=True).stdout for command in commands]


def profile(**values: Any) -> NetworkProfile:
    return NetworkProfile.from_mapping(values)


def relays(lab: Lab) -> list[psutil.Process]:
    """The relay processes of a lab."""
    found = []
    for child in psutil.Process(lab.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "netem.relay_process" in child.cmdline():
                found.append(child)
    return found
