"""Our commands on a stock kernel with netem, and the relay beside it: a whole lab under Debian's user-mode-linux.

Needs the package `user-mode-linux`, but neither root nor a kernel of one's own. `UML_MODULES` is the folder of the
kernel's modules.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

KERNEL = shutil.which("linux.uml")
MODULES = os.environ.get("UML_MODULES") or next(map(str, Path("/usr/lib/uml/modules").glob("*")), "")
HERE = Path(__file__).parent
ASKED = {  # RTT in ms; Mbit/s of a>b and b>a
    "wan": (40, 400, 400),
    "asymmetric": (35, 20, 100),
}

pytestmark = pytest.mark.skipif(
    not (KERNEL and MODULES), reason="needs linux.uml and its modules, of Debian's package user-mode-linux"
)


@pytest.fixture(scope="module")
def results():
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
        "JOB": "tests.netem.real_netem",
    }
    argv = [KERNEL, "ro", "quiet", *(f"{key}={value}" for key, value in words.items())]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=280, check=False)
    assert "JOB ENDED 0" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
    lines = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return [json.loads(line) for line in lines]


def of(results, profile, backend):
    return next(one for one in results if (one.get("profile"), one.get("backend")) == (profile, backend))


@pytest.mark.parametrize("backend", ["tc", "relay"])
@pytest.mark.parametrize("profile", ASKED)
def test_round_trip_and_rate_of_each_direction_are_as_asked(results, profile, backend):
    rtt, there, back = ASKED[profile]
    links = of(results, profile, backend)["links"]
    # One emulated processor, on which a system call takes 60 us: a relay in user space may be too slow there.
    slowest = 0.8 if backend == "tc" else 0.1
    for pair, rate in (("a>b", there), ("b>a", back)):
        assert links[pair]["rtt_ms"] == pytest.approx(rtt, rel=0.1, abs=4)
        assert slowest * rate < links[pair]["rate_mbit"] < 1.2 * rate


def test_jitter_and_loss_are_there_by_both(results):
    for backend in ("tc", "relay"):
        jittered = of(results, "jitter", backend)["links"]["a>b"]
        assert jittered["rtt_ms"] == pytest.approx(40, abs=10)
        assert jittered["rtt_p99_ms"] - jittered["rtt_ms"] > 1
        lossy = of(results, "loss", backend)["links"]["a>b"]
        assert lossy["rate_mbit"] < 60  # what 2 % leaves of TCP at 20 ms; without loss it would be hundreds


def test_the_rules_are_netem_under_htb_and_gone_afterwards(results):
    for one in results:
        if one.get("backend") == "tc":
            assert "qdisc htb" in one["rules"]
            assert "qdisc netem" in one["rules"]
        if "clean" in one:
            assert one["clean"]


def test_a_kernel_with_netem_gets_the_back_end_tc(results):
    assert results[-1] == {"auto": "tc"}
