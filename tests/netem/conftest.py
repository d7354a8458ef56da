"""What the tests of links share."""

import contextlib
import os
import shutil
import subprocess
import time

import pytest

from netem.lab import Lab


def obstacle() -> str:
    """Why there can be no lab here; empty if there can."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    for program in ("unshare", "nsenter", "setpriv"):
        if shutil.which(program) is None:
            return f"needs {program}, of the package util-linux"
    done = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True)
    return f"cannot make namespaces: {done.stderr.strip()}" if done.returncode else ""


def pytest_collection_modifyitems(items):
    why = obstacle()
    if why:
        for item in items:
            if item.get_closest_marker("netns"):
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="module")
def lab():
    with Lab.up(3) as made:
        yield made


@pytest.fixture
def state(tmp_path, monkeypatch):
    """A folder for leases that is the test's own."""
    monkeypatch.setenv("MPCACHE_BENCH_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def eventually(condition, seconds=20.0):
    """Whether a condition comes true in time; an answer that is false or an error means not yet."""
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        with contextlib.suppress(OSError):
            if condition():
                return True
        time.sleep(0.05)
    return False
