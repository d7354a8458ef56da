"""A sweep on a faulty machine: the disk fills up, the clock is set."""

import contextlib
import io
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.experiment.cells import expand
from orchestrator.records.record import Status
from orchestrator.records.store import RecordStore, StoreError
from orchestrator.run import stopwatch
from orchestrator.run.placement import ROLES
from orchestrator.run.ray_session import ray_session
from tests.helpers.fake_cells import FAKE, fake_experiment
from tests.helpers.stepped_party import SteppedParty
from tests.helpers.sweeping import sweep_in
from tests.helpers.waiting import eventually

pytestmark = [
    pytest.mark.ray,
    # Ray leaves its own sockets and log files to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Fills the disk to the last byte."""
    with (disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass


def fill_once_parties_are_up(out: Path, disk: Path) -> None:
    def up() -> bool:
        with contextlib.suppress(ValueError):  # half a file
            groups = json.loads((out / "targets.json").read_text())
            return {group["labels"]["party"] for group in groups} >= set(ROLES)
        return False

    assert eventually(up)
    fill(disk)


@pytest.fixture
def ray_here() -> Iterator[None]:
    """One Ray for all sweeps of a test."""
    with ray_session(None):
        yield


@pytest.mark.usefixtures("ray_here")
def test_a_full_disk_keeps_finished_records_and_the_same_command_resumes(small_disk: Path, tmp_path: Path) -> None:
    out = small_disk / "out"
    experiment = fake_experiment(tmp_path, "pause-server-decode", seq_lens=[16, 17])
    cells = expand(experiment)
    console = Console(file=io.StringIO())
    sweep_in(out, experiment, cells[:1], console=console, party_class=FAKE)
    finished = (out / "records.jsonl").read_bytes()

    filling = threading.Thread(target=fill_once_parties_are_up, args=(out, small_disk))
    filling.start()
    with pytest.raises(StoreError, match=rf"cannot write .* to {out}/records.jsonl: No space left.*same command"):
        sweep_in(out, experiment, cells, console=console, party_class=FAKE)
    filling.join()
    assert (out / "records.jsonl").read_bytes() == finished

    (small_disk / "filler").unlink()
    outcome = sweep_in(out, experiment, cells, console=console, party_class=FAKE)
    assert [record.status for record in outcome.records] == [Status.OK, Status.OK]
    assert (out / "records.jsonl").read_bytes().startswith(finished)
    assert RecordStore(out).warnings == []


class SetClock(datetime):
    """A clock that is an hour further back at each look."""

    looks = 0

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        cls.looks += 1
        return datetime.now(tz) - timedelta(hours=cls.looks)


def test_a_clock_that_is_set_leaves_seconds_unharmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopwatch, "datetime", SetClock)
    experiment = fake_experiment(  # links as they are: none drifts from a target on a busy machine
        tmp_path, prompt={"random_tokens": True}, engines=["fss"], seq_lens=[16], new_tokens=2, networks=["none"]
    )
    began = time.monotonic()
    stepped = f"{SteppedParty.__module__}:{SteppedParty.__name__}"
    outcome = sweep_in(
        tmp_path / "out", experiment, expand(experiment), console=Console(file=io.StringIO()), party_class=stepped
    )
    took = time.monotonic() - began
    (record,) = outcome.records
    assert record.seconds_per_token is not None, record.error
    assert 0 < record.seconds_per_token * record.tokens < took
    assert 0 < (record.finished - record.started).total_seconds() < took
    assert all(0 <= stage.blocked_seconds <= took and 0 <= stage.seconds <= took for stage in record.stages)
    assert record.links
    assert all(0 < link.measured_before["rtt_ms"] < 1000 * took for link in record.links)
