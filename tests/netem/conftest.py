"""What the tests of links share."""

import contextlib
import time

import pytest

from netem.lab import Lab


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
