"""The limits of control groups, from made-up trees of both versions, and from a real group where one can be made."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from parties.metering.cgroup import Memory, memory, oom_kills, read_oom_kills, usable_cpus
from parties.metering.process import process_readings
from tests.helpers.waiting import PATIENCE_S

NO_LIMIT_V1 = str(2**63 - 4096)
CORES = len(os.sched_getaffinity(0))
PROGRAM = """
import os, sys
from pathlib import Path
(Path(sys.argv[1]) / "cgroup.procs").write_text(str(os.getpid()))
from parties.metering.cgroup import memory, oom_kills
print(memory().limit, memory().source, oom_kills().file)
"""


def tree(root: Path, own: str, mounts: str, files: Mapping[str, str]) -> Path:
    """A proc file system that names cgroups below `root`, and their files."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    proc = root / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text(own)
    (proc / "self/mountinfo").write_text(mounts.replace("ROOT", str(root).replace(" ", r"\040")))
    return proc


def v1(root: Path, own: str, files: Mapping[str, str], mounted: str = "/") -> Path:
    mounts = (
        f"30 23 0:30 {mounted} ROOT/cg/memory rw,relatime shared:5 - cgroup cgroup rw,memory\n"
        f"31 23 0:31 {mounted} ROOT/cg/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
        f"32 23 0:32 / ROOT/cg/unified rw,relatime - cgroup2 cgroup2 rw\n"
    )
    return tree(root, f"5:cpu,cpuacct:{own}\n4:memory:{own}\n1:name=systemd:/\n0::/\n", mounts, files)


def v2(root: Path, own: str, files: Mapping[str, str], mounted: str = "/") -> Path:
    return tree(root, f"0::{own}\n", f"30 23 0:30 {mounted} ROOT/cg rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n", files)


@pytest.mark.parametrize("version", [1, 2])
def test_the_least_limit_of_a_group_and_those_above_it_counts(tmp_path: Path, version: int) -> None:
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    if version == 2:
        names = ("memory.max", "memory.current", "inactive_file")
    base = "cg/memory" if version == 1 else "cg"
    groups = {"": (NO_LIMIT_V1 if version == 1 else "max", 7), "a": ("1000", 700), "a/b": ("3000", 650)}
    files: dict[str, str] = {}
    for group, (limit, used) in groups.items():
        there = f"{base}/{group}"
        files |= {f"{there}/{names[0]}": limit, f"{there}/{names[1]}": str(used)}
        files[f"{there}/memory.stat"] = f"anon 1\n{names[2]} 100\nother 5"
    proc = (v1 if version == 1 else v2)(tmp_path, "/a/b", files)
    assert memory(proc) == Memory(1000, 400, f"the cgroup {tmp_path}/{base}/a")


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_whose_own_group_is_mounted_is_limited_by_it(tmp_path: Path, version: int) -> None:
    """Docker with the host's namespace of cgroups names the group as the host does; with one of its own, as `/`."""
    name = "memory.limit_in_bytes" if version == 1 else "memory.max"
    base = "cg/memory" if version == 1 else "cg"
    make = v1 if version == 1 else v2
    for number, (own, mounted) in enumerate([("/docker/1f", "/docker/1f"), ("/", "/"), ("/../other/1f", "/")]):
        proc = make(tmp_path / str(number), own, {f"{base}/{name}": "12345"}, mounted)
        found = memory(proc)
        assert (found.limit, found.source) == (12345, f"the cgroup {tmp_path}/{number}/{base}")


@pytest.mark.parametrize("text", ["max", "", "nonsense", str(2**62)])
def test_without_a_limit_the_host_is_the_limit(tmp_path: Path, text: str) -> None:
    found = memory(v2(tmp_path, "/", {"cg/memory.max": text}))
    assert (found.limit, found.source) == (psutil.virtual_memory().total, "the host")
    assert 0 < found.available <= found.limit
    assert memory(tmp_path / "no proc").source == "the host"


def test_more_use_than_the_limit_leaves_nothing_and_spaces_in_paths_are_read(tmp_path: Path) -> None:
    files = {"cg/memory.max": "1000", "cg/memory.current": "1500", "cg/memory.stat": ""}
    assert memory(v2(tmp_path / "a b", "/", files)).available == 0


def test_the_least_quota_of_cpu_time_counts(tmp_path: Path) -> None:
    own = {"cg/a/cpu.max": "max 100000", "cg/cpu.max": "25000 100000"}
    assert usable_cpus(v2(tmp_path / "two", "/a", own)) == 0.25
    old = {
        "cg/cpu/a/cpu.cfs_quota_us": "50000",
        "cg/cpu/a/cpu.cfs_period_us": "100000",
        "cg/cpu/cpu.cfs_quota_us": "-1",
    }
    assert usable_cpus(v1(tmp_path / "one", "/a", old)) == 0.5
    assert usable_cpus(v2(tmp_path / "none", "/", {"cg/cpu.max": "max 100000"})) == CORES
    assert usable_cpus(tmp_path / "no proc") == CORES
    assert not math.isinf(usable_cpus())


def test_processes_killed_for_memory_are_counted_in_the_own_group_or_on_the_host(tmp_path: Path) -> None:
    old = {"cg/memory/a/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3"}
    kills = oom_kills(v1(tmp_path / "one", "/a", old))
    assert kills is not None
    assert (kills.count, kills.file) == (3, f"{tmp_path}/one/cg/memory/a/memory.oom_control")
    new = oom_kills(v2(tmp_path / "two", "/a", {"cg/a/memory.events": "low 0\noom 2\noom_kill 1\noom_group_kill 0"}))
    assert new is not None
    assert new.count == 1
    host = oom_kills(v2(tmp_path / "host", "/", {"proc/vmstat": "nr_free_pages 1\noom_kill 5"}))
    assert host is not None
    assert (host.count, host.file) == (5, f"{tmp_path}/host/proc/vmstat")
    assert oom_kills(tmp_path / "no proc") is None
    assert read_oom_kills(str(tmp_path / "gone")) is None


def test_a_process_serves_the_limit_that_preflight_asks_for() -> None:
    served = dict(process_readings())
    assert served["mpcbench_memory_limit_bytes"] == memory().limit
    assert 0 < served["mpcbench_memory_available_bytes"] <= memory().limit


@pytest.fixture
def real_group() -> Iterator[Path]:
    """A group of this machine with a limit of 3 GB."""
    v1_memory, v2_all = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    parent, name = (v1_memory, "memory.limit_in_bytes") if v1_memory.is_dir() else (v2_all, "memory.max")
    group = parent / f"mpcbench-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made below {parent}: {error.strerror} (needs root and a writable hierarchy)")
    try:
        if not (group / name).exists():
            pytest.skip(f"the controller memory is not enabled for groups below {parent}")
        (group / name).write_text(str(3 * 10**9))
        yield group
    finally:
        group.rmdir()


def test_a_real_group_limits_the_process_in_it(real_group: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(real_group)], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    limit, *_, counter = done.stdout.split()
    assert abs(int(limit) - 3 * 10**9) < 2**16  # whole pages
    assert str(real_group) in done.stdout
    assert counter.startswith(str(real_group))
