"""Removes rules whose owner is gone or whose time is up, and nothing else.

`python -m netem.janitor` watches the leases of its network namespace until there are none. Whoever takes a lease calls
`ensure` first; it makes a process that outlives its parent and of which only one watches at a time.
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
    """Remove all rules of ended leases in this network namespace, and those leases; do it twice and nothing happens.

    Returns:
        What was done, and what was left and why, in words.
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
    """Have a janitor in this network namespace from now on, for as long as there are leases."""
    # Two forks: it is nobody's child, so nobody's death ends it and nobody has to wait for it.
    launcher = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"
    nothing = subprocess.DEVNULL
    argv = [command("")[0], "-c", launcher, *command("netem.janitor")]
    subprocess.run(argv, stdin=nothing, stdout=nothing, stderr=nothing, env=environment(), cwd="/", check=True)


def watch() -> None:
    """Remove what has ended, until there are no leases."""
    with _only_one() as mine:
        while mine and any(lease.here for lease in leases()):
            clean()
            time.sleep(_PERIOD_S)


@contextlib.contextmanager
def _only_one() -> Iterator[bool]:
    """Whether this is the janitor of its network namespace.

    Another one may be about to end without having seen our lease; if it still watches after a few periods, it has.
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
