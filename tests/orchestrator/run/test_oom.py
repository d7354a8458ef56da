"""A party that the kernel kills for lack of memory is recorded as `oom`."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from orchestrator.records.record import Status
from orchestrator.records.store import RecordStore
from orchestrator.run import preflight
from orchestrator.run.deadline import Deadline
from orchestrator.run.failures import CellFailure, lost
from orchestrator.run.placement import ROLES, Placement
from parties.engines.fss.dealing.folder import Space
from parties.metering.cgroup import Memory
from tests.helpers import samples
from tests.helpers.paths import HELPERS, ROOT
from tests.helpers.waiting import PATIENCE_S, eventually

MEMORY = Path("/sys/fs/cgroup/memory")
LIMIT = 4 * 10**9


def died() -> ray.exceptions.RayActorError:
    return ray.exceptions.RayActorError()


def test_the_kernels_count_of_killed_processes_decides_oom() -> None:
    found = lost("server", died(), None, "the kernel has since killed a process for want of memory (FILE)")
    assert (found.status, found.role) == ("oom", "server")
    assert "killed a process for want of memory (FILE)" in found.message
    assert lost("server", died(), None).status == "party_died"


def test_a_disk_without_room_for_stored_randomness_is_named_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preflight, "on_node", lambda *_: Space("/var/tmp", 10**6))  # noqa: S108
    placement = Placement("PACK", dict.fromkeys(ROLES, "n1"), dict.fromkeys(ROLES, "127.0.0.1"), {}, {})
    asked: Any = Deadline(60, threading.Event())
    stored = samples.cell(model="random:smollm2-135m", engines=["fss"], offline="stored")
    with pytest.raises(CellFailure, match=r" of 127\.0\.0\.1 has 0\.0 GB free.*nothing was started") as refused:
        preflight.require_disk(stored, placement, asked)
    assert refused.value.status == "config_error"
    preflight.require_disk(samples.cell(model="random:smollm2-135m", engines=["fss"]), placement, asked)


def test_a_limit_is_named_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    free = Memory(3 * 10**9, 24 * 10**8 + 3 * 10**7, "the cgroup /a/b")
    monkeypatch.setattr(preflight, "usable_memory", lambda _: free)
    nowhere = dict.fromkeys(ROLES, "n1")
    placement = Placement("PACK", nowhere, dict.fromkeys(ROLES, "127.0.0.1"), {}, {})
    asked: Any = Deadline(60, threading.Event())
    large = samples.cell(model="random:smollm2-135m", engines=["fss"])
    with pytest.raises(CellFailure, match=r"2\.4 GB free of the 3\.0 GB that the cgroup /a/b allows") as refused:
        preflight.require_memory(large, placement, asked)
    assert refused.value.status == "oom"
    assert "GB more (server" in refused.value.message
    assert "weights 1.3" in refused.value.message
    assert "nothing was started" in refused.value.message
    held = preflight.require_memory(samples.cell(engines=["plain"]), placement, asked)
    assert preflight.require_memory(samples.cell(engines=["plain"]), placement, asked, held) == held
    with pytest.raises(CellFailure, match="nothing was started"):
        preflight.require_memory(large, placement, asked, held)


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of 4 GB, version 1."""
    group = MEMORY / f"mpcbench-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made in {MEMORY}: {error.strerror} (needs root and the controller memory of v1)")
    try:
        (group / "memory.limit_in_bytes").write_text(str(LIMIT))
        yield group
    finally:
        eventually(lambda: not (group / "cgroup.procs").read_text())
        with contextlib.suppress(OSError):
            group.rmdir()


@pytest.mark.ray
def test_a_party_killed_by_a_limit_is_oom_and_the_sweep_continues(group: Path, tmp_path: Path) -> None:
    program = [sys.executable, str(HELPERS / "sweep_program.py"), str(tmp_path / "out"), "eat-server-decode", "16"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    join = ["sh", "-c", 'echo $$ > "$0/cgroup.procs"; exec "$@"', str(group)]
    done = subprocess.run(
        [*join, *program], env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    (record,) = RecordStore(tmp_path / "out").read()
    assert record.status is Status.OOM, done.stdout + done.stderr
    assert record.error is not None
    assert record.error.role == "server"
    assert f"killed a process for want of memory ({group}/memory.oom_control)" in record.error.message
    assert done.returncode == 0, done.stderr
