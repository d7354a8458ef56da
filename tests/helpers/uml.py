"""Boots Debian's user-mode-linux, a stock kernel with netem, and runs a lab on it.

    python -m tests.helpers.uml

prints relay and real netem for every preset that one emulated processor can carry. Needs the package
`user-mode-linux`, but neither root nor a kernel of one's own. `UML_MODULES` is the folder of the kernel's modules.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from netem import preset

KERNEL = shutil.which("linux.uml")
MODULES = os.environ.get("UML_MODULES") or next(map(str, Path("/usr/lib/uml/modules").glob("*")), "")
PRESETS = ("wan", "wan-100m-80ms", "mp-spdz-wan", "cheetah-wan", "wan-1g-10ms")
HERE = Path(__file__).parent


def boot(profiles: Sequence[str], timeout_s: float) -> list[dict[str, Any]]:
    """Measures profiles by `tc` and by `relay` under user-mode-linux; see `real_netem` for the results."""
    words = {
        "mem": "1024M",
        "root": "/dev/root",
        "rootfstype": "hostfs",
        "rootflags": "/",
        "init": str(HERE / "uml_init.sh"),
        "con": "null",
        "con0": "null,fd:1",
        "ssl": "null",
        "PYTHON": sys.executable,
        "MODULES": MODULES,
        "FOLDER": str(HERE.parents[1]),
        "JOB": "tests.helpers.real_netem",
        "PROFILES": ",".join(profiles),
    }
    argv = [KERNEL, "ro", "quiet", *(f"{key}={value}" for key, value in words.items())]
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    ) as machine:  # fmt: skip
        prefer(machine.pid)
        try:
            output, _ = machine.communicate(timeout=timeout_s)
        except BaseException:
            machine.kill()
            raise
    if "JOB ENDED 0" not in output:
        raise RuntimeError(output[-4000:])
    return [json.loads(line.removeprefix("RESULT ")) for line in output.splitlines() if line.startswith("RESULT ")]


def prefer(process: int) -> None:
    """Lets a session run before others where that is allowed: the machine's clock is late while it has to wait."""
    with contextlib.suppress(OSError):  # no right to, or no groups of sessions
        Path(f"/proc/{process}/autogroup").write_text("-15", encoding="ascii")


def main() -> None:
    """Prints the table."""
    show("| preset | RTT asked | `tc` | `relay` | Mbit/s asked | `tc` | `relay` |", "|---|---|---|---|---|---|---|")
    found = {(one.get("profile"), one.get("backend")): one for one in boot(PRESETS, 900)}
    for name in PRESETS:
        link = preset(name).link("a", "b")
        tc, relay = (found[name, backend]["links"]["a>b"] for backend in ("tc", "relay"))
        trips = f"{2 * link.delay_ms:g} | {tc['rtt_ms']:.1f} | {relay['rtt_ms']:.1f}"
        show(f"| `{name}` | {trips} | {link.rate_mbit:g} | {tc['rate_mbit']:.0f} | {relay['rate_mbit']:.0f} |")


def show(*lines: str) -> None:
    """Prints lines."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
