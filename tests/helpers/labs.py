"""What the tests of the lab share."""

import contextlib
import subprocess
import sys

import psutil

from netem import NetworkProfile, Tolerance

NAMES = ("client", "server", "dealer")
CLEAN = "from netem.janitor import clean; print(*clean(), sep='\\n', end='')"
SENT = "/sys/class/net/eth0/statistics/tx_bytes"
# Far from what a shared machine does to a measurement, near enough to tell one profile from another.
TOLERANCE = Tolerance(rtt_ms=8, rtt_pct=25, rate_pct=50)


def endpoints(lab, port=7000):
    return {name: (host.address, port) for name, host in zip(NAMES, lab.hosts, strict=False)}


def out(lab, host, *argv):
    return lab.run(host, argv, capture_output=True, text=True, check=False).stdout.strip()


def python(lab, host, script, **options):
    return lab.run(host, [sys.executable, "-c", script], capture_output=True, text=True, **options)


def seen_by_the_machine():
    """What `ip` and `tc` show of this machine, without counters."""
    commands = (["ip", "-o", "link"], ["ip", "netns"], ["ip", "-o", "addr"], ["tc", "qdisc"])
    return [subprocess.run(command, capture_output=True, text=True, check=True).stdout for command in commands]


def profile(**values):
    return NetworkProfile.from_mapping(values)


def relays(lab):
    """The relay processes of a lab."""
    found = []
    for child in psutil.Process(lab.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "netem.relay_process" in child.cmdline():
                found.append(child)
    return found
