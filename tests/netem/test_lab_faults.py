"""Processes that die or stall: nothing is left behind, and no shaped link silently becomes unshaped."""

# ruff: noqa: S108 - a host's /tmp is its own

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from netem import preset, shape
from netem.lab import Lab, labs
from netem.process import environment
from tests.helpers.labs import CLEAN, endpoints, out, python, relays, seen_by_the_machine
from tests.helpers.waiting import PATIENCE_S, eventually

pytestmark = pytest.mark.netns


def test_a_killed_driver_gives_the_links_back(lab: Lab) -> None:
    script = (
        "import sys, time; from netem import *; from netem.lab import labs\n"
        f"lab = next(lab for lab in labs() if lab.id == {lab.id!r})\n"
        f"with shape(preset('wan'), {endpoints(lab)!r}, site=lab): print('shaped', flush=True); time.sleep(600)"
    )
    argv = [sys.executable, "-c", script]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment()) as driver:
        assert driver.stdout.readline() == "shaped\n"
        driver.kill()
    assert eventually(lambda: not relays(lab))
    with shape(preset("none"), endpoints(lab), site=lab) as network:
        measured = network.measure(0.05)
        assert measured
        assert all(got.rtt_ms < 20 for got in measured.values())


def test_a_killed_relay_leaves_no_unshaped_link_and_the_bridge_is_restored(lab: Lab) -> None:
    with shape(preset("wan"), endpoints(lab), site=lab):
        relays(lab)[0].kill()
        assert out(lab, "h0", "ping", "-c", "1", "-W", "1", lab.hosts[1].address).count("0 received") <= 1
        reached = python(
            lab, "h0", f"import socket; socket.create_connection(({lab.hosts[1].address!r}, 1), timeout=2)"
        )
        assert "ConnectionRefused" not in reached.stderr
        assert reached.returncode != 0
    refused = python(lab, "h0", f"import socket; socket.create_connection(({lab.hosts[1].address!r}, 1), timeout=60)")
    assert "ConnectionRefused" in refused.stderr


def test_a_stalling_relay_is_a_drift_that_the_measurement_shows(lab: Lab) -> None:
    two = dict(list(endpoints(lab).items())[:2])
    with shape(preset("lan"), two, site=lab) as network:
        relay = relays(lab)[0]
        done = threading.Event()

        def stutter() -> None:
            while not done.wait(0.02):
                relay.suspend()
                time.sleep(0.1)
                relay.resume()

        thread = threading.Thread(target=stutter)
        thread.start()
        try:
            measured = network.measure(0.2, attempts=1)
        finally:
            done.set()
            thread.join()
        assert network.deviations(measured)


def test_a_detached_lab_stays_is_found_and_is_removed(tmp_path: Path) -> None:
    before = seen_by_the_machine()
    up = "from netem.lab import Lab; print(Lab.up(2, detached=True).id)"
    done = subprocess.run([sys.executable, "-c", up], capture_output=True, text=True, env=environment(), check=True)
    made = next(found for found in labs() if found.id == done.stdout.strip())
    try:
        assert out(made, "h0", "hostname").endswith("-h0")
        made.spawn("h1", ["sleep", "1000"], "/tmp/log")
    finally:
        made.down()
    assert made.id not in {found.id for found in labs()}
    assert not any(psutil.pid_exists(host.pid) for host in made.hosts)
    assert seen_by_the_machine() == before


def killed_supervisor(made: Lab) -> None:
    os.kill(made.pid, signal.SIGKILL)


def killed_host(made: Lab) -> None:
    os.kill(made.hosts[0].pid, signal.SIGKILL)


@pytest.mark.parametrize("kill", [killed_supervisor, killed_host])
def test_after_a_kill_nothing_stays(kill: Callable[[Lab], None]) -> None:
    before = seen_by_the_machine()
    with Lab.up(2) as made:
        made.spawn("h1", ["sleep", "1000"], "/tmp/log")
        inside = psutil.Process(made.pid).children(recursive=True)
        with shape(preset("wan"), endpoints(made), site=made):
            kill(made)
    assert eventually(lambda: not any(process.is_running() for process in inside))
    assert made.id not in {found.id for found in labs()}
    assert seen_by_the_machine() == before


def test_a_killed_driver_ends_its_lab() -> None:
    before = seen_by_the_machine()
    up = "import time; from netem.lab import Lab\nwith Lab.up(2) as lab: print(lab.pid, flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", up], stdout=subprocess.PIPE, text=True, env=environment()) as driver:
        supervisor = psutil.Process(int(driver.stdout.readline()))
        everyone = [supervisor, *supervisor.children(recursive=True)]
        driver.kill()
    gone, alive = psutil.wait_procs(everyone, timeout=PATIENCE_S)
    assert not alive
    assert len(gone) >= 7
    assert seen_by_the_machine() == before


def test_a_killed_owner_of_rules_is_cleaned_up_after_by_the_janitor_of_its_host(lab: Lab) -> None:
    script = (
        "import os, signal; from netem.flows import *; from netem import Link, tc_apply\n"
        f"flow = Flow({lab.hosts[0].address!r}, {lab.hosts[1].address!r}, (Ports(7000),), Link(rate_mbit=10))\n"
        "tc_apply.apply('eth0', [flow], 'a killed run', 600); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert python(lab, "h0", script).returncode != 0
    assert eventually(lambda: "htb" not in out(lab, "h0", "tc", "qdisc", "show", "dev", "eth0"))
    assert eventually(lambda: out(lab, "h0", "ls", "/tmp/mpcache-bench/leases") == "")


def test_after_the_janitor_too_is_killed_clean_removes_the_rules(lab: Lab) -> None:
    script = (
        "import os, signal; from netem.flows import *; from netem import Link, janitor, tc_apply\n"
        f"flow = Flow({lab.hosts[0].address!r}, {lab.hosts[1].address!r}, (Ports(7000),), Link(rate_mbit=10))\n"
        "janitor.ensure = lambda: None  # as if killed at once\n"
        "tc_apply.apply('eth0', [flow], 'a killed run', 600); os.kill(os.getpid(), signal.SIGKILL)"
    )
    # the janitor of an earlier test would remove the rules first
    assert eventually(lambda: "netem.janitor" not in out(lab, "h0", "ps", "-e", "-o", "args="))
    python(lab, "h0", script)
    assert "htb" in out(lab, "h0", "tc", "qdisc", "show", "dev", "eth0")
    assert "removed eth0: rules of run a killed run" in python(lab, "h0", CLEAN).stdout
    assert "htb" not in out(lab, "h0", "tc", "qdisc", "show", "dev", "eth0")
    assert python(lab, "h0", CLEAN).stdout == ""
