"""Which kinds of shaping this host supports, or why not."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_CAP_NET_ADMIN = 12


@dataclass(frozen=True)
class Capability:
    """Support for the `tc` back end on this host.

    Attributes:
        rate: Why links with only a rate cannot be shaped; empty if they can.
        delay: Why links with delay, jitter or loss cannot be shaped; empty if they can.
        kernel: Release of the kernel, for the record.
        congestion_control: Default TCP congestion control of new sockets.
    """

    rate: str
    delay: str
    kernel: str
    congestion_control: str


@cache
def capability() -> Capability:
    """Probe the kernel by adding qdiscs to the loopback of a temporary network namespace."""
    default = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text(encoding="ascii").strip()
    missing = _missing()
    rate = missing or _refusal("htb", "default", "0")
    delay = rate or _refusal("netem", "delay", "1ms", "limit", "10")
    return Capability(rate, delay, os.uname().release, default)


def _missing() -> str:
    if shutil.which("tc") is None:
        return "tc is not installed; install the package iproute2"
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff"))
    if not effective >> _CAP_NET_ADMIN & 1:
        return "tc needs root, or the capability CAP_NET_ADMIN"
    return ""


def _refusal(kind: str, *options: str) -> str:
    """Why the kernel refuses a kind of qdisc; empty if it accepts it."""
    add = ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "handle", "1:", kind, *options]
    done = subprocess.run(add, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    message = (done.stderr.strip().splitlines() or ["no reason given"])[0]
    return f"kernel {os.uname().release} refuses {kind}: {message}"
