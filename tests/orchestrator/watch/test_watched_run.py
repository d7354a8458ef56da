"""Real runs that are watched, by a Prometheus that is killed and by scrapers that hang."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.records.timeline import load
from orchestrator.watch.observation import observing
from orchestrator.watch.prometheus import down, running
from orchestrator.watch.terminal import SweepProgress
from tests.helpers.waiting import PATIENCE_S, wait_until
from tests.orchestrator.watch.test_watching_prometheus import (
    free_port,
    needs_prometheus,
    observe,
    query,
)

pytestmark = pytest.mark.ray

EXPERIMENT = """
name: {name}
model: random:tiny-llama
prompt: {{random_tokens: true}}
engines: [fss]
policies: [full]
networks: [{{name: slow, rate_mbit: 100, delay_ms: 10}}]
seq_lens: [16]
new_tokens: 8
"""


def start(folder: Path, name: str) -> "subprocess.Popen[str]":
    """A run of one cell, in a process of its own."""
    (folder / f"{name}.yaml").write_text(EXPERIMENT.format(name=name))
    command = [
        sys.executable,
        "-m",
        "orchestrator.cli.main",
        "run",
        str(folder / f"{name}.yaml"),
        "--out",
        str(folder / name),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def targets(folder: Path) -> list[dict[str, Any]]:
    """Every target of every run."""
    return [group for path in folder.glob("*.json") for group in json.loads(path.read_text())]


def test_two_simultaneous_runs_of_one_experiment_are_distinguished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "targets"
    monkeypatch.setenv("MPCACHE_BENCH_TARGETS", str(folder))
    monkeypatch.setattr("orchestrator.watch.observation._own_host", lambda: "127.0.0.1")
    sweep = SweepProgress("same", 1)
    with observing("same", tmp_path / "one", sweep) as one, observing("same", tmp_path / "two", sweep) as two:
        one.targets.write({"client": ("127.0.0.1", 1)})
        two.targets.write({"client": ("127.0.0.1", 2)})
        found = targets(folder)
        assert len({group["labels"]["run"] for group in found}) == 2
        assert len({tuple(group["targets"]) for group in found}) == 4
        one.linger()  # without a watcher there is no wait
    assert targets(folder) == []


@needs_prometheus
def test_a_run_is_not_affected_by_a_killed_prometheus_or_hanging_scrapers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, port = tmp_path / "targets", free_port()
    folder.mkdir()
    monkeypatch.setenv("MPCACHE_BENCH_TARGETS", str(folder))
    assert observe("up", "--detach", "--port", str(port), "--folder", str(tmp_path / "prom"), "--ray", "")[0] == 0
    with contextlib.ExitStack() as stack:
        stack.callback(down, tmp_path / "prom")
        began = time.monotonic()
        run = stack.enter_context(start(tmp_path, "watched"))
        wait_until(lambda: len(query(port, "mpcbench_tokens_total > 1")) == 2 or run.poll() is not None)
        assert len(query(port, "mpcbench_run_info")) == 1
        assert len(query(port, "mpcbench_link_measured_rtt_seconds")) == 6
        busy = query(port, "sum by (run, party) (mpcbench_stage_seconds_total)")
        assert {found["metric"]["party"] for found in busy} >= {"client", "server"}
        assert all(0 < float(found["value"][1]) < time.monotonic() - began for found in busy)  # no second counts twice
        for group in targets(folder):  # scrapers that send half a request and hang
            host, _, number = group["targets"][0].rpartition(":")
            hung = stack.enter_context(socket.create_connection((host, int(number)), PATIENCE_S))
            hung.sendall(b"GET /metrics HTTP/1.1\r\n")
        started = running(tmp_path / "prom")
        assert started is not None
        psutil.Process(started["pid"]).kill()
        output, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode in (0, 1), output
    (record,) = map(json.loads, (tmp_path / "watched" / "records.jsonl").read_text().splitlines())
    # it ran to its end: a random model may tie, and the links of a busy machine be slower than asked for
    assert record["status"] in ("ok", "incorrect", "shaping_drifted"), output
    replies = [sample["parties"] for sample in load(tmp_path / "watched", record["id"])]
    assert max(reply["client"]["tokens"] for reply in replies if "client" in reply) >= 6  # a late reply is left out
    assert "<h2>Time series</h2>" in (tmp_path / "watched" / "report.html").read_text()
    assert not (tmp_path / "watched" / "targets.json").exists()
    assert targets(folder) == []
