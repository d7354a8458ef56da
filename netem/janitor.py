"""Removes the rules of expired leases and of leases whose owner has exited, and nothing else.

`python -m netem.janitor` watches the leases of its network namespace until there are none. Every taker of a lease calls
`ensure`, which starts a process that outlives its parent; only one such process watches at a time.
"""

import contextlib
import fcntl
import os
import subprocess
import time
from collections.abc import Iterator

from netem.errors import ShapingError
from netem.lease import leases, own_network
from netem.process import command, environment
from netem.state import state_dir
from netem.tc_run import remove

_PERIOD_S = 0.5
_WAIT_S = 4 * _PERIOD_S


def clean() -> list[str]:
    """Remove all ended leases of this network namespace and their rules; idempotent.

    Returns:
        A text for each lease: what was done, or why the lease was left.
    """
    done = []
    for lease in leases():
        what = f"{lease.device}: rules of {lease}"
        if lease.lost:
            lease.drop()
            done.append(f"forgot {what}: gone with their network namespace")
        elif not lease.here:
            done.append(f"left {what}: in another network namespace")
        elif not lease.ended:
            done.append(f"left {what}: still in use")
        else:
            try:
                done.append(f"removed {what}" if remove(lease) else f"forgot {what}: they were gone")
            except ShapingError as error:
                done.append(f"left {what}: {error}")
    return done


def ensure() -> None:
    """Ensure that a janitor runs in this network namespace for as long as there are leases."""
    # Double fork: the janitor has no parent that could take it down or that would have to reap it.
    launcher = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"
    nothing = subprocess.DEVNULL
    argv = [command("")[0], "-c", launcher, *command("netem.janitor")]
    subprocess.run(argv, stdin=nothing, stdout=nothing, stderr=nothing, env=environment(), cwd="/", check=True)


def watch() -> None:
    """Remove ended leases until there are no leases left."""
    with _only_one() as mine:
        while mine and any(lease.here for lease in leases()):
            clean()
            time.sleep(_PERIOD_S)


@contextlib.contextmanager
def _only_one() -> Iterator[bool]:
    """Whether this process is the only janitor of its network namespace.

    Another janitor may be about to exit without having seen our lease. If it still watches after a few periods, it has
    seen the lease.
    """
    path = state_dir("janitors") / f"{own_network()}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield _locked(descriptor)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    stop = time.monotonic() + _WAIT_S
    while time.monotonic() < stop:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(_PERIOD_S / 4)
    return False


if __name__ == "__main__":
    watch()
