"""Resource limits of this process: those of its host and of its control groups (cgroups), versions 1 and 2.

The limits of a container are in the files of the process's group and of its parent groups; the smallest one applies.
`/proc/self/cgroup` names the group in each hierarchy, `/proc/self/mountinfo` has the mount point of each hierarchy; see
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
        path: Folder of the group.
        version: Version of its hierarchy, 1 or 2.
    """

    path: Path
    version: int

    def number(self, name: str, key: str = "") -> int | None:
        """A number in a file of the group: the whole content, or the value of the line that begins with `key`.

        Returns:
            The number; None if there is no such file or line, or if it is not a number (`max`: no limit).
        """
        try:
            text = (self.path / name).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return None
        found = re.search(rf"^{key + ' ' if key else ''}(\d+)$", text.strip(), re.M)
        return int(found[1]) if found else None

    @property
    def memory_limit(self) -> int | None:
        """Memory limit of all its processes together, in bytes; None without a limit."""
        return self.number("memory.limit_in_bytes" if self.version == 1 else "memory.max")

    @property
    def memory_used(self) -> int:
        """Memory in use by its processes, in bytes, without cache that the kernel can reclaim."""
        used = self.number("memory.usage_in_bytes" if self.version == 1 else "memory.current") or 0
        cached = self.number("memory.stat", "total_inactive_file" if self.version == 1 else "inactive_file") or 0
        return max(0, used - cached)

    @property
    def cpus(self) -> float:
        """CPU quota of all its processes together, in CPUs; infinite without a quota."""
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
    """Memory that further processes could use.

    Attributes:
        limit: Bytes that all processes, running and new, may use together.
        available: Bytes of the limit that are left.
        source: Source of the limit: the host or a group.
    """

    limit: int
    available: int
    source: str

    def __str__(self) -> str:
        return f"{self.available / 1e9:.1f} GB free of the {self.limit / 1e9:.1f} GB that {self.source} allows"


@dataclass(frozen=True)
class OomKills:
    """How often the kernel has killed a process for lack of memory.

    Attributes:
        file: File of the counter, of a group or of the whole host.
        count: Number of kills so far.
    """

    file: str
    count: int


def memory(proc: Path = _PROC) -> Memory:
    """Memory left by the host and the groups of this process.

    Args:
        proc: Mount point of the proc file system.
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
    """Number of CPUs that this process may use: those of its affinity, or the smallest quota of its groups."""
    return min([len(os.sched_getaffinity(0)), *(group.cpus for group in _groups("cpu", proc))])


def oom_kills(proc: Path = _PROC) -> OomKills | None:
    """The kernel's count of OOM kills in the group of this process, or on the host if it is in no group.

    A group counts all kills of its processes, whether the limit of the group or the memory of the host was exhausted.
    """
    files = [group.path / _counter(group.version) for group in _groups("memory", proc)[:1]]
    found = (read_oom_kills(str(file)) for file in [*files, proc / "vmstat"])
    return next((kills for kills in found if kills is not None), None)


def read_oom_kills(file: str) -> OomKills | None:
    """The count in a file from `oom_kills`; None if it cannot be read."""
    path = Path(file)
    count = Group(path.parent, 0).number(path.name, "oom_kill")
    return None if count is None else OomKills(file, count)


def _counter(version: int) -> str:
    return "memory.oom_control" if version == 1 else "memory.events"


def _groups(controller: str, proc: Path) -> list[Group]:
    """The group of this process in the hierarchy of a controller, and its parents, as far as they are visible."""
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
    """Mounts of a hierarchy: pairs of the mounted group and the mount point."""
    found = []
    for line in mounts:
        place, separator, rest = line.partition(" - ")
        words, filesystem = place.split(), rest.split()
        if separator and filesystem[0] == kind and (not controller or controller in filesystem[-1].split(",")):
            root, folder = (_ESCAPED.sub(lambda code: chr(int(code[1], 8)), word) for word in words[3:5])
            found.append((PurePosixPath(root), Path(folder)))
    return found


def _upwards(path: str, mounts: Sequence[tuple[PurePosixPath, Path]], version: int) -> list[Group]:
    """A group and its parents, up to the mount point of the hierarchy."""
    own = PurePosixPath(path)
    for root, folder in mounts:
        if own.is_relative_to(root) and (folder / own.relative_to(root)).is_dir():
            below = own.relative_to(root)
            return [Group(folder / there, version) for there in (below, *below.parents)]
    # In a container the path of the group may be that on the host, while the group itself is what is mounted.
    return [Group(folder, version) for _, folder in mounts[:1]]
