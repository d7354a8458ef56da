"""Runs sweeps of the real command under random faults; exits with 1 if anything is lost or left behind.

    python -m benchmarks.soak --seconds 7200 --seed 1 --out DIR

Faults are injected only into processes that the soak started. `DIR/events.jsonl` gets a line per call of the command,
and `DIR/summary.json` the counts; SIGINT and SIGTERM end the soak early with the same checks. As root every third round
runs on emulated hosts.
"""

import argparse
import collections
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.soak import checks
from benchmarks.soak.driver import COMMAND, Driver, Traces
from benchmarks.soak.faults import PARTY, InjectedFault, append_half_record, command_line, faults, inject
from benchmarks.soak.sweeps import sweep
from orchestrator.records.record import Record, Status

_CODE = Path(__file__).resolve().parents[2]  # run this working tree, not an installed version
_CALM = 0.2  # fraction of calls without a fault
_LATEST_S = 30.0  # latest fault after the parties are up
_LONGEST_S = 1200.0
_PAUSE_S = 3.0


class Soak:
    """The rounds. Each is a sweep in its own folder, called until all its cells are `ok`."""

    def __init__(self, out: Path, seed: int, stop: threading.Event) -> None:
        self._out, self._stop = out, stop
        self._random = random.Random(seed)  # noqa: S311 - faults, not keys
        self._traces, self._before = Traces(), checks.machine()
        self._state, self._scratch = out / "state", out / "tmp"
        for folder in (self._state, self._scratch):
            folder.mkdir(parents=True)
        overrides = {
            "MPCACHE_BENCH_STATE": str(self._state),
            "TMPDIR": str(self._scratch),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(_CODE),
        }
        self._environment = {**os.environ, **overrides}
        self._counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self._violations: list[str] = []

    def run(self, seconds: float) -> dict[str, Any]:
        """Runs all rounds that begin within `seconds`; returns the summary."""
        began = time.monotonic()
        while not self._stop.is_set() and time.monotonic() - began < seconds:
            self._round(began + seconds)
        subprocess.run([str(COMMAND), "clean"], env=self._environment, check=True, stdout=sys.stderr)
        left = checks.leftovers(self._traces, self._before, self._state, self._scratch)
        summary = {
            "seconds": round(time.monotonic() - began),
            **{name: dict(counter) for name, counter in self._counts.items()},
            "processes": len(self._traces.processes),
            "network_namespaces": len(self._traces.networks),
            "leftovers": left,
            "violations": self._violations,
        }
        (self._out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        return summary

    def _round(self, until: float) -> None:
        """Runs one sweep until it is complete or the time is over."""
        number = self._counts["rounds"]["begun"]
        self._counts["rounds"]["begun"] += 1
        lab = os.geteuid() == 0 and number % 3 == 2
        folder = self._out / f"round-{number:03}"
        folder.mkdir()
        (folder / "experiment.yaml").write_text(sweep(lab=lab, seed=number))
        while not self._stop.is_set() and time.monotonic() < until:
            if self._call(folder, lab=lab):
                self._counts["rounds"]["complete"] += 1
                return
            self._stop.wait(_PAUSE_S)

    def _call(self, folder: Path, *, lab: bool) -> bool:
        """Runs the command once, with or without a fault; returns whether the sweep is complete."""
        number = sum(self._counts["calls"].values())
        options = ["--out", str(folder / "out"), "--retry", "failed", "--limit", str(self._random.randint(3, 9))]
        known = checks.whole_lines(folder / "out" / "records.jsonl")
        driver = Driver(
            [str(folder / "experiment.yaml"), *options, *(["--lab"] if lab else [])],
            folder / f"call-{number:04}.log",
            self._environment,
            self._traces,
        )
        self._counts["calls"]["lab" if lab else "local"] += 1
        try:
            injected = self._inject(driver, folder / "out", lab=lab)
            status = self._ending(driver)
        finally:
            driver.end()
        if injected and injected.fault.corrupts_records:
            append_half_record(folder / "out" / "records.jsonl")
        now = checks.whole_lines(folder / "out" / "records.jsonl")
        self._judge(folder, number, known, now, injected, status)
        return status == 0

    def _inject(self, driver: Driver, out: Path, *, lab: bool) -> InjectedFault | None:
        """Waits until the parties are up and a random time longer, then injects a fault."""
        choices = faults(lab=lab)
        fault = self._random.choices(choices, [choice.weight for choice in choices])[0]
        calm, later = self._random.random() < _CALM, self._random.uniform(0, _LATEST_S)
        while not calm and not self._stop.is_set() and (family := driver.family()):
            if later <= 0 and (injected := inject(fault, family, out, self._random.choice)):
                self._counts["faults"][fault.name] += 1
                return injected
            if any(PARTY in command_line(process) for process in family):
                later -= 0.5
            time.sleep(0.5)
        self._counts["faults"]["none"] += 1
        return None

    def _ending(self, driver: Driver) -> int | None:
        """Waits for the driver; returns its exit status, or None if it does not exit."""
        stop = time.monotonic() + _LONGEST_S
        while time.monotonic() < stop and not self._stop.is_set():
            if (status := driver.wait(1.0)) is not None:
                return status
        driver.process.send_signal(signal.SIGINT)
        return driver.wait(120.0)

    def _judge(
        self,
        folder: Path,
        number: int,
        known: list[bytes],
        now: list[bytes],
        injected: InjectedFault | None,
        status: int | None,
    ) -> None:
        """Checks the records of the call, and logs the event."""
        lost = checks.lost(known, now)
        fresh = [Record.model_validate_json(line) for line in now[len(known) :]]
        if status == 0:
            lost += checks.unfinished(now, folder / "out" / "cells.json")
        wrong = lost + ([] if self._stop.is_set() else checks.implausible(fresh, injected))
        if status is None:
            wrong.append("the driver did not end")
        if status not in (0, 1) and not (self._stop.is_set() or (injected and injected.fault.ends)):
            wrong.append(f"the driver ended with {status}")
        self._counts["outcomes"].update(str(record.status) for record in fresh)
        self._counts["records"].update(
            {"finished": sum(record.status is Status.OK for record in fresh), "lost": len(lost)}
        )
        self._violations += [f"{folder.name} call {number}: {text}" for text in wrong]
        event = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "round": folder.name,
            "call": number,
            "fault": injected.fault.name if injected else "none",
            "victim": [injected.pid, injected.role] if injected else None,
            "exit": status,
            "before": len(known),
            "records": [[record.id, record.status, record.error.role if record.error else ""] for record in fresh],
            "violations": wrong,
        }
        line = json.dumps(event)
        with (self._out / "events.jsonl").open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=7200.0, help="no call begins later than this")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    given = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    given.out.mkdir(parents=True)
    summary = Soak(given.out.resolve(), given.seed, stop).run(given.seconds)
    print(json.dumps(summary, indent=2))
    return 1 if summary["violations"] or summary["leftovers"] else 0


if __name__ == "__main__":
    sys.exit(main())
