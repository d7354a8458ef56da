"""A lab on an image without `ip` and `tc`, on a kernel without bridges, and without util-linux."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from netem import NetemError, preset, shape
from netem.lab import Lab
from netem.process import environment
from tests.helpers.labs import TOLERANCE, endpoints, relays

pytestmark = pytest.mark.netns

HIDDEN = ("ip", "tc", "bridge", "ss")
NO_BRIDGES = """
import errno
from pyroute2.iproute.linux import RTNL_API
from pyroute2.netlink.exceptions import NetlinkError
known = RTNL_API.link
async def link(self, command, **options):
    if options.get("kind") == "bridge":
        raise NetlinkError(errno.EOPNOTSUPP, "Operation not supported")
    return await known(self, command, **options)
RTNL_API.link = link
"""


@pytest.fixture
def bare_path() -> Iterator[str]:
    """A search path with all programs of this machine except those of iproute2; hosts of a lab see it too."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        for source in ("/usr/sbin", "/usr/bin", "/sbin", "/bin"):
            for program in Path(source).iterdir():
                link = Path(folder) / program.name
                if program.name not in HIDDEN and not link.is_symlink():
                    link.symlink_to(program)
        yield folder


def test_hosts_and_shaped_links_need_neither_ip_nor_tc(bare_path: str) -> None:
    script = (
        "import shutil; from netem import *; from netem.lab import Lab\n"
        f"assert not any(map(shutil.which, {HIDDEN}))\n"
        "with Lab.up(2) as lab:\n"
        "    ends = {name: (host.address, 7000) for name, host in zip(('client', 'server'), lab.hosts)}\n"
        "    with shape(NetworkProfile.from_mapping({'rate_mbit': 100}), ends, site=lab) as network:\n"
        f"        print(network.backend, network.deviations(network.measure(0.1), {TOLERANCE}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**environment(), "PATH": bare_path}
    )
    assert (done.stdout, done.returncode) == ("relay ()\n", 0), done.stderr


def test_without_bridges_the_relay_connects_the_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_BRIDGES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with Lab.up(2) as lab:
        ends = endpoints(lab)
        assert len(relays(lab)) == 1
        for name in ("wan", "none"):  # the second finds the links as they were
            with shape(preset(name), ends, site=lab) as network:
                measured = network.measure(0.1)
                assert network.deviations(measured, TOLERANCE) == ()
        assert all(got.rtt_ms < 20 for got in measured.values())


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None if program == "setpriv" else f"/bin/{program}")
    with pytest.raises(NetemError, match=r"needs setpriv; install the packages util-linux"):
        Lab.up(2)
