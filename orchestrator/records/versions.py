"""Versions that a measurement depends on: software, kernel and machine."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from parties.metering.cgroup import memory, usable_cpus

_PACKAGES = ("torch", "crypten", "ray", "transformers", "numpy", "mpcache-bench")


@cache
def host_versions() -> dict[str, str]:
    """Versions and hardware of this host, as text; of cores and memory, what this process may use."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if commit := _commit():
        found["commit"] = commit
    return found | {
        "kernel": f"{platform.system()} {platform.release()}",
        "cpu": _cpu_model(),
        "cores": f"{usable_cpus():g}",
        "memory_gib": f"{memory().limit / 2**30:.1f}",
    }


def _commit() -> str | None:
    """The git commit of this code, with a plus sign if files were changed since."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
