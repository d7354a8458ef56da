"""The time series of one cell: progress of the parties, about once per second, in bounded memory."""

import gzip
import json
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.records.atomic import write_atomically
from parties.roles.reports import PartyProgress

Progress = Mapping[str, PartyProgress | None]
Sample = dict[str, Any]

FOLDER = "timeline"
SECONDS = 1.0
MOST_SAMPLES = 600
FORMAT = 1

_KEPT = (
    *("state", "stage", "tokens", "sent_bytes", "received_bytes", "rounds", "blocked_seconds", "compute_seconds"),
    *("cpu_seconds", "rss_bytes", "memory_limit_bytes", "memory_available_bytes", "gpu_bytes"),
)


class Timeline:
    """Samples of one cell; when there are many, every other one is dropped and the sampling rate halved.

    A sample holds `t` (seconds since the cell began), `parties` (by role, the values of `Party.progress`),
    `stages` (the client's, or the referee's of a `plain` cell: seconds, rounds and bytes both ways) and `pairs` (bytes
    sent by ordered pair such as `client>server`). All amounts are sums since the cell began, so that a dropped sample
    loses resolution and nothing else. A party that was silent since the last sample is not in it.

    Args:
        cell: Id of the cell.
        clock: Source of time, in seconds.

    Attributes:
        generation: Counts up when samples were dropped, so that a reader who has seen some starts again.
        samples: The samples, in order of time.
    """

    def __init__(self, cell: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.cell = cell
        self.generation = 0
        self.samples: list[Sample] = []
        self._clock, self._began = clock, clock()
        self._pace = SECONDS
        self._next = 0.0
        self._uptimes: dict[str, float | None] = {}

    def add(self, progress: Progress) -> Sample | None:
        """Takes a sample if it is time for one; None if it is not."""
        now = self._clock() - self._began
        if now < self._next:
            return None
        self._next = (now // self._pace + 1) * self._pace
        heard = {role: state for role, state in progress.items() if state is not None and self._is_new(role, state)}
        sample = sample_of(round(now, 3), heard)
        self.samples.append(sample)
        if len(self.samples) > MOST_SAMPLES:
            self.samples = self.samples[::2]
            self._pace *= 2
            self.generation += 1
        return sample

    def _is_new(self, role: str, state: PartyProgress) -> bool:
        """Whether a party has answered since the last sample: an old answer is not its present state."""
        uptime = state.uptime_seconds
        before, self._uptimes[role] = self._uptimes.get(role), uptime
        return uptime is None or uptime != before

    def save(self, run_dir: Path) -> None:
        """Writes `timeline/ID.json.gz` into the folder of a run, whole or not at all.

        Raises:
            OSError: The folder cannot be written.
        """
        path = path_of(run_dir, self.cell)
        path.parent.mkdir(exist_ok=True)
        text = json.dumps({"format": FORMAT, "cell": self.cell, "samples": self.samples}, separators=(",", ":"))
        write_atomically(path, gzip.compress(text.encode(), mtime=0))


def sample_of(t: float, progress: Mapping[str, PartyProgress]) -> Sample:
    """One sample of the progress of all parties."""
    clock = "referee" if "referee" in progress and progress["referee"].tokens else "client"
    stages = progress[clock].stages if clock in progress else {}
    parties = progress.items()
    return {
        "t": t,
        "parties": {role: {key: _short(getattr(state, key)) for key in _KEPT} for role, state in parties},
        "stages": {name: [_short(amount) for amount in amounts] for name, amounts in stages.items()},
        "pairs": {f"{role}>{peer}": sent for role, state in parties for peer, sent in state.peers.items()},
    }


def _short(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def load(run_dir: Path, cell: str) -> list[Sample]:
    """The saved samples of a cell; none if there is no file, or one that cannot be read."""
    try:
        saved = json.loads(gzip.decompress(path_of(run_dir, cell).read_bytes()))
        return list(saved["samples"]) if saved["format"] == FORMAT else []
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError):
        return []


def path_of(run_dir: Path, cell: str) -> Path:
    """Where the time series of a cell is."""
    return run_dir / FOLDER / f"{cell}.json.gz"
