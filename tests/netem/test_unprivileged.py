"""Without root: an ordinary user still has a WAN on loopback, and errors name the features that need root."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.waiting import PATIENCE_S

pytestmark = pytest.mark.links

NOBODY = 65534


def as_nobody(*argv: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command as an ordinary user without any capability, but with the present user's read access."""
    drop = ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}"] if os.geteuid() == 0 else []
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(home)}
    return subprocess.run([*drop, *argv], capture_output=True, text=True, env=environment, cwd="/", timeout=PATIENCE_S)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    done = as_nobody("true", home=tmp_path)
    if done.returncode:
        pytest.skip(f"cannot become an ordinary user: {done.stderr.strip()}")
    return tmp_path


def test_the_proxy_emulates_a_wan_for_an_ordinary_user(home: Path) -> None:
    script = (
        "import socket, netem\n"
        "listeners = [socket.create_server(('127.0.0.1', 0)) for _ in range(2)]\n"
        "endpoints = dict(zip('ab', (one.getsockname() for one in listeners)))\n"
        "with netem.shape(netem.preset('wan'), endpoints) as network:\n"
        "    print(network.backend, *(round(got.rtt_ms) for got in network.measure(0.1).values()))\n"
    )
    done = as_nobody(sys.executable, "-c", script, home=home)
    assert done.returncode == 0, done.stderr
    backend, *trips = done.stdout.split()
    assert backend == "proxy"
    assert all(int(trip) >= 36 for trip in trips)


def test_tc_is_refused_with_its_requirements(home: Path) -> None:
    script = "from netem.capability import capability; print(capability().rate)"
    assert "root, or the capability CAP_NET_ADMIN" in as_nobody(sys.executable, "-c", script, home=home).stdout


def test_each_requested_back_end_is_refused_with_its_reason(home: Path) -> None:
    script = (
        "import netem\n"
        "endpoints = {'a': ('127.0.0.1', 1), 'b': ('127.0.0.1', 2)}\n"
        "for backend in ('tc', 'relay'):\n"
        "    try:\n"
        "        netem.shape(netem.preset('wan'), endpoints, backend=backend).__enter__()\n"
        "    except netem.BackendUnavailable as error: print(error)\n"
    )
    lines = as_nobody(sys.executable, "-c", script, home=home).stdout.splitlines()
    assert len(lines) == 2
    assert "loopback" in lines[0]
    assert "hub" in lines[1]


@pytest.mark.parametrize("command", [["lab", "up"], ["run", "examples/quickstart.yaml", "--lab", "--out", "OUT"]])
def test_a_lab_is_refused_by_naming_root(home: Path, command: list[str]) -> None:
    words = [
        str(ROOT / word) if word.startswith("examples") else str(home / "out") if word == "OUT" else word
        for word in command
    ]
    done = as_nobody(sys.executable, "-m", "orchestrator.cli.main", *words, home=home)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "root" in done.stderr
    assert "Traceback" not in done.stderr
