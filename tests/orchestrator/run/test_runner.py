"""The life of a cell, with real processes, real links and real faults; only the cryptography is fake."""

import itertools
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from netem import ProbeError, host, shaping
from orchestrator.experiment.networks import ROLES as SHAPED
from orchestrator.records.record import Record, Status
from orchestrator.run.placement import ROLES
from orchestrator.run.ray_session import ray_session
from orchestrator.run.runner import Outcome, Runner, job_of
from orchestrator.watch.targets import TargetFile
from tests.helpers.fake_cells import FAKE, fake_cell, party_processes
from tests.helpers.fake_party import STATES

pytestmark = [
    pytest.mark.ray,
    # Ray leaves its own sockets and log files to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    with ray_session(None):
        yield


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def runner(tmp_path: Path, stop: threading.Event) -> Iterator[Runner]:
    with Runner("fake", tmp_path, TargetFile([tmp_path / "targets.json"], "fake"), stop, party_class=FAKE) as runner:
        yield runner
    assert not party_processes()
    assert not (tmp_path / "targets.json").exists()


def run(runner: Runner, folder: Path, fault: str = "none", **changes: object) -> Outcome:
    return runner.run(fake_cell(folder, fault, **changes), lambda _: None)


def no_probe(*_: object) -> NoReturn:
    raise ProbeError("nothing arrived after the warm-up")


def test_a_cell_on_unshaped_links_runs_although_they_cannot_be_probed(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "measure_link", no_probe)
    monkeypatch.setattr(shaping, "_PAUSE_S", 0.0)
    notes: list[str] = []
    record, _ = runner.run(fake_cell(tmp_path), lambda _: None, notes.append)
    assert record.status == Status.OK
    assert [(link.measured_before, link.measured_after) for link in record.links] == [(None, None)] * 6
    assert "the link client>server could not be measured before the cell; nothing is asked of it" in record.warnings
    assert "measuring the link client>server" in notes
    assert Record.model_validate_json(record.model_dump_json()) == record


def pids() -> set[int]:
    return {process.pid for process in party_processes()}


def test_a_cell_runs_with_each_party_in_a_process_of_its_own(runner: Runner, tmp_path: Path) -> None:
    states: dict[str, set[str]] = {role: set() for role in ROLES}
    cell = fake_cell(tmp_path, "pause-referee-decode")

    def watch(progress: object) -> None:
        assert isinstance(progress, dict)
        for role, last in progress.items():
            states[role].add("" if last is None else last.state)

    record, text = runner.run(cell, watch)
    assert text is None
    assert (record.status, record.id, record.experiment) == (Status.OK, cell.id, "fake")
    assert {stage.party for stage in record.stages} == set(ROLES)
    assert len(pids()) == len(ROLES)
    assert os.getpid() not in pids()
    assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in pids()} == {0}  # Ray's own default is 15
    assert record.warnings == ()
    assert all(seen & set(STATES) for seen in states.values())
    groups = json.loads((tmp_path / "targets.json").read_text())
    assert len(groups) == len(ROLES)
    assert {group["labels"]["party"] for group in groups} == set(ROLES)


def test_parties_stay_for_the_next_cell_of_the_same_kind_only(runner: Runner, tmp_path: Path) -> None:
    run(runner, tmp_path)
    first = pids()
    assert run(runner, tmp_path, seq_lens=[17]).record.status is Status.OK
    assert pids() == first
    slow = run(runner, tmp_path, networks=[{"name": "slow", "rate_mbit": 50, "delay_ms": 20}]).record
    assert (slow.status, slow.shaping) == (Status.OK, "proxy")
    assert pids() == first
    assert run(runner, tmp_path, timeout_s=59).record.status is Status.OK
    assert len(pids()) == len(ROLES)
    assert not pids() & first


@pytest.mark.parametrize(
    ("role", "state", "stage"),
    [
        ("server", "loading", "bench.loading"),
        ("client", "prefill", "bench.prefill"),
        ("dealer", "decode", "softmax"),
        ("referee", "check", "bench.check"),
    ],
)
def test_a_killed_party_is_named_and_ends_the_others(
    runner: Runner, tmp_path: Path, role: str, state: str, stage: str
) -> None:
    record = run(runner, tmp_path, f"sigkill-{role}-{state}").record
    assert record.status is Status.PARTY_DIED
    assert record.error is not None
    assert (record.error.role, record.error.stage) == (role, stage)
    assert record.error.sent_bytes > 0 or not stage.startswith("softmax")
    assert not party_processes()


def test_after_a_failure_the_next_cell_gets_new_parties(runner: Runner, tmp_path: Path) -> None:
    assert run(runner, tmp_path, "sigkill-client-decode").record.status is Status.PARTY_DIED
    assert run(runner, tmp_path).record.status is Status.OK


def test_a_stopped_party_is_named_since_it_does_not_report(runner: Runner, tmp_path: Path) -> None:
    record = run(runner, tmp_path, "sigstop-dealer-decode", timeout_s=10).record
    assert record.status is Status.TIMEOUT
    assert record.error is not None
    assert (record.error.role, record.error.stage) == ("dealer", "softmax")
    stacks = (tmp_path / "stacks" / f"{record.id}.txt").read_text()
    assert f"stacks/{record.id}.txt" in record.error.message
    assert re.search("== client ==\n(Current thread|Thread)", stacks)
    assert "stopped" in stacks.partition("== dealer ==")[2]
    assert not party_processes()


def test_a_cell_that_takes_too_long_leaves_the_stacks_of_all_parties(runner: Runner, tmp_path: Path) -> None:
    run(runner, tmp_path)  # so that the time goes to the cell, not to the start
    record = run(runner, tmp_path, "sleep-server-decode", cell_timeout_s=30).record
    assert record.status is Status.TIMEOUT
    assert record.error is not None
    assert "cell_timeout_s: 30" in record.error.message
    assert "server in decode/softmax" in record.error.message
    stacks = (tmp_path / "stacks" / f"{record.id}.txt").read_text()
    assert "in fail" in stacks.partition("== server ==")[2].partition("== dealer ==")[0]
    assert not party_processes()


@pytest.mark.parametrize(
    ("limits", "words"),
    [({"cell_timeout_s": 30}, "longer than cell_timeout_s: 30"), ({"timeout_s": 10}, "no news from dealer for 15 s")],
)
def test_a_stopped_party_that_no_peer_waits_for_is_named_by_its_missing_progress(
    runner: Runner, tmp_path: Path, limits: dict[str, int], words: str
) -> None:
    run(runner, tmp_path)  # so that the time goes to the cell, not to the start
    record = run(runner, tmp_path, "alone-dealer-decode", **limits).record
    assert record.status is Status.TIMEOUT
    assert record.error is not None
    assert words in record.error.message
    assert (record.error.role, record.error.stage) == ("dealer", "softmax")
    assert "stopped" in (tmp_path / "stacks" / f"{record.id}.txt").read_text().partition("== dealer ==")[2]


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ("hog", Status.OOM, "smaller model"),  # really allocates beyond a limit
        ("bug", Status.PARTY_DIED, "KeyError"),
    ],
)
def test_a_party_that_fails_is_recorded_with_its_message(
    runner: Runner, tmp_path: Path, fault: str, status: Status, words: str
) -> None:
    record = run(runner, tmp_path, f"{fault}-server-decode").record
    assert record.status is status
    assert record.error is not None
    assert words in record.error.message
    assert (record.error.role, record.error.stage) == ("server", "softmax")
    assert "orange-otter" not in record.model_dump_json()  # quoted by the fake's error


def test_a_number_out_of_range_is_recorded_and_cells_that_compute_the_same_are_not_run(
    runner: Runner, tmp_path: Path
) -> None:
    first = run(runner, tmp_path, "range-referee-prefill").record
    assert first.status is Status.OUT_OF_RANGE
    assert first.error is not None
    assert first.error.out_of_range is not None
    left = first.error.out_of_range
    assert (left.number, left.value, left.layer, left.kind) == ("mean square", 2.0, 3, "certain")
    assert "mean square of layer 3" in first.error.message

    again = run(runner, tmp_path, "range-referee-prefill", argmax="private", timeout_s=59).record
    assert not party_processes(), "nothing was started"
    assert (again.status, again.error and again.error.out_of_range) == (Status.OUT_OF_RANGE, left)
    assert again.error is not None
    assert first.id in again.error.message
    other = run(runner, tmp_path, "range-referee-prefill", seq_lens=[17]).record
    assert other.error is not None
    assert "seen in cell" not in other.error.message, "another prompt is looked at anew"


def test_a_stop_ends_the_cell_and_its_parties(runner: Runner, tmp_path: Path, stop: threading.Event) -> None:
    def watch(progress: object) -> None:
        assert isinstance(progress, dict)
        if any(last is not None and last.state == "decode" for last in progress.values()):
            stop.set()

    record = runner.run(fake_cell(tmp_path, "sleep-client-decode"), watch).record
    assert record.status is Status.INTERRUPTED
    assert not party_processes()


def test_a_gpu_that_is_not_there_is_unsupported(runner: Runner, tmp_path: Path) -> None:
    record = run(runner, tmp_path, gpu=True).record
    assert record.status is Status.UNSUPPORTED
    assert record.error is not None
    assert "gpu: false" in record.error.message


def test_a_model_that_cannot_fit_is_refused_before_anything_starts(runner: Runner, tmp_path: Path) -> None:
    model = "random:llama?layers=1000&hidden=65536&heads=64&kv_heads=64&intermediate=65536"
    record = run(runner, tmp_path, model=model).record
    assert record.status is Status.OOM
    assert record.error is not None
    assert "GB free" in record.error.message
    assert "needs about" in record.error.message
    assert not party_processes()


def test_a_model_that_is_gone_is_a_config_error(runner: Runner, tmp_path: Path) -> None:
    cell = fake_cell(tmp_path).model_copy(update={"model": str(tmp_path / "gone")})
    record = runner.run(cell, lambda _: None).record
    assert record.status is Status.CONFIG_ERROR
    assert record.error is not None
    assert "gone" in record.error.message


def test_a_port_in_use_is_a_config_error_that_names_it(runner: Runner, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        record = run(runner, tmp_path, data_ports={"server": port}).record
    assert record.status is Status.CONFIG_ERROR
    assert record.error is not None
    assert record.error.role == "server"
    assert str(port) in record.error.message


def test_a_shaped_cell_runs_on_links_that_were_measured_before_and_after(runner: Runner, tmp_path: Path) -> None:
    record = run(runner, tmp_path, networks=[{"name": "slow", "rate_mbit": 50, "delay_ms": 20}]).record
    assert record.status is Status.OK, record.error
    assert record.shaping == "proxy"
    assert {(link.src, link.dst) for link in record.links} == set(itertools.permutations(SHAPED, 2))
    for link in record.links:
        for measured in (link.measured_before, link.measured_after):
            assert measured is not None
            assert 36 <= measured["rtt_ms"] <= 44
            assert 45 <= measured["rate_mbit"] <= 55


def test_a_back_end_that_cannot_shape_these_links_is_named_with_its_reason(runner: Runner, tmp_path: Path) -> None:
    record = run(runner, tmp_path, networks=["wan"], shaping="relay").record
    assert record.status is Status.SHAPING_FAILED
    assert record.error is not None
    assert "relay: " in record.error.message


def test_a_link_that_cannot_be_had_stops_the_cell_before_it_starts(runner: Runner, tmp_path: Path) -> None:
    record = run(runner, tmp_path, networks=[{"name": "too-fast", "rate_mbit": 400_000}]).record
    assert record.status is Status.SHAPING_FAILED
    assert record.error is not None
    assert "asked for 400000 Mbit/s within 10 %" in record.error.message
    assert all(link.measured_before and not link.measured_after for link in record.links)
    assert run(runner, tmp_path).record.status is Status.OK, "the next cell is not harmed"


def test_a_requested_text_is_not_in_the_record(tmp_path: Path, stop: threading.Event) -> None:
    targets = TargetFile([tmp_path / "targets.json"], "fake")
    with Runner("fake", tmp_path, targets, stop, show_text=True, party_class=FAKE) as runner:
        record, text = run(runner, tmp_path)
    assert text == "a word"
    assert "a word" not in record.model_dump_json()


def test_a_job_names_the_prompt_by_its_path_only(tmp_path: Path) -> None:
    job = job_of(fake_cell(tmp_path), show_text=False)
    assert "the client's prompt" not in json.dumps(job)
    assert job["prompt"]["text_file"] == str(tmp_path / "none")
