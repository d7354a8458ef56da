"""What this process may use of its host: the limits of its control groups (cgroups), versions 1 and 2.

A container's limits are in the files of the process's own group and of the groups above it, and the least one counts.
`/proc/self/cgroup` names the group in each hierarchy, `/proc/self/mountinfo` says where a hierarchy is mounted; see
cgroups(7) and the kernel's Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst.
"""

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil

_PROC = Path("/proc")
_HOST = "the host"
_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Group:
    """A control group.

    Attributes:
        path: Its folder.
        version: Of its hierarchy, 1 or 2.
    """

    path: Path
    version: int

    def number(self, name: str, key: str = "") -> int | None:
        """A number in one of its files: the whole file's, or that of the line that begins with a key.

        Returns:
            The number; None if there is no such file or line, or if it is no number (`max`: no limit).
        """
        try:
            text = (self.path / name).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return None
        found = re.search(rf"^{key + ' ' if key else ''}(\d+)$", text.strip(), re.M)
        return int(found[1]) if found else None

    @property
    def memory_limit(self) -> int | None:
        """Bytes that its processes may use together."""
        return self.number("memory.limit_in_bytes" if self.version == 1 else "memory.max")

    @property
    def memory_used(self) -> int:
        """Bytes that its processes use, without what the kernel takes back when it needs room."""
        used = self.number("memory.usage_in_bytes" if self.version == 1 else "memory.current") or 0
        cached = self.number("memory.stat", "total_inactive_file" if self.version == 1 else "inactive_file") or 0
        return max(0, used - cached)

    @property
    def cpus(self) -> float:
        """CPUs whose time its processes may use together; infinite without a quota."""
        if self.version == 1:
            quota, period = self.number("cpu.cfs_quota_us"), self.number("cpu.cfs_period_us")  # no limit is -1
        else:
            try:
                words = (self.path / "cpu.max").read_text(encoding="ascii").split()
            except OSError:
                return math.inf
            quota, period = (int(word) if word.isdigit() else None for word in words)
        return quota / period if quota and period else math.inf


@dataclass(frozen=True)
class Memory:
    """Memory that processes beside this one could use.

    Attributes:
        limit: Bytes that they and those that run may use together.
        available: How many of them are left.
        source: Who sets the limit: the host's size, or a group.
    """

    limit: int
    available: int
    source: str

    def __str__(self) -> str:
        return f"{self.available / 1e9:.1f} GB free of the {self.limit / 1e9:.1f} GB that {self.source} allows"


@dataclass(frozen=True)
class OomKills:
    """How often the kernel has killed a process for want of memory.

    Attributes:
        file: Where it counts: that of a group, or of the whole host.
        count: The number so far.
    """

    file: str
    count: int


def memory(proc: Path = _PROC) -> Memory:
    """What this process's host and groups leave it.

    Args:
        proc: Where the proc file system is.
    """
    host = psutil.virtual_memory()
    limits = [Memory(host.total, host.available, _HOST)]
    for group in _groups("memory", proc):
        if (limit := group.memory_limit) is not None and limit < host.total:
            limits.append(Memory(limit, max(0, limit - group.memory_used), f"the cgroup {group.path}"))
    least = min(limits, key=lambda found: found.limit)
    tightest = min(limits, key=lambda found: found.available)
    return Memory(least.limit, tightest.available, least.source)


def usable_cpus(proc: Path = _PROC) -> float:
    """CPUs whose time this process may use: those it may run on, or the least quota of its groups."""
    return min([len(os.sched_getaffinity(0)), *(group.cpus for group in _groups("cpu", proc))])


def oom_kills(proc: Path = _PROC) -> OomKills | None:
    """The kernel's count of killed processes for this process's own group; the host's where it is in none.

    A group counts its own processes that were killed, whether its limit or the host's memory ran out.
    """
    files = [group.path / _counter(group.version) for group in _groups("memory", proc)[:1]]
    found = (read_oom_kills(str(file)) for file in [*files, proc / "vmstat"])
    return next((kills for kills in found if kills is not None), None)


def read_oom_kills(file: str) -> OomKills | None:
    """The count in a file that `oom_kills` named; None if it cannot be read."""
    path = Path(file)
    count = Group(path.parent, 0).number(path.name, "oom_kill")
    return None if count is None else OomKills(file, count)


def _counter(version: int) -> str:
    return "memory.oom_control" if version == 1 else "memory.events"


def _groups(controller: str, proc: Path) -> list[Group]:
    """This process's group in the hierarchy of a controller, and those above it, as far as they can be seen."""
    try:
        lines = (proc / "self/cgroup").read_text(encoding="utf-8").splitlines()
        mounts = (proc / "self/mountinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    own = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    for _, controllers, path in own:
        if controller in controllers.split(","):
            return _upwards(path, _mounted(mounts, "cgroup", controller), 1)
    for number, _, path in own:
        if number == "0":
            return _upwards(path, _mounted(mounts, "cgroup2", ""), 2)
    return []


def _mounted(mounts: Iterable[str], kind: str, controller: str) -> list[tuple[PurePosixPath, Path]]:
    """Where a hierarchy is mounted: pairs of the group that is seen there and the folder."""
    found = []
    for line in mounts:
        place, separator, rest = line.partition(" - ")
        words, filesystem = place.split(), rest.split()
        if separator and filesystem[0] == kind and (not controller or controller in filesystem[-1].split(",")):
            root, folder = (_ESCAPED.sub(lambda code: chr(int(code[1], 8)), word) for word in words[3:5])
            found.append((PurePosixPath(root), Path(folder)))
    return found


def _upwards(path: str, mounts: Sequence[tuple[PurePosixPath, Path]], version: int) -> list[Group]:
    """The folder of a group and those above it, up to where the hierarchy is mounted."""
    own = PurePosixPath(path)
    for root, folder in mounts:
        if own.is_relative_to(root) and (folder / own.relative_to(root)).is_dir():
            below = own.relative_to(root)
            return [Group(folder / there, version) for there in (below, *below.parents)]
    # A container may name its group as the host sees it, while the folder of that very group is what is mounted.
    return [Group(folder, version) for _, folder in mounts[:1]]
