"""State of the running sweep in the driver, for its exporter, the live page and the files of time series."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from netem import LinkReading
from orchestrator.experiment.cells import Cell
from orchestrator.records.record import Record
from orchestrator.records.timeline import Progress, Sample, Timeline
from orchestrator.watch.terminal import SweepProgress
from parties.metering.collector import Sample as MetricSample
from parties.metering.registry import RUN_INFO
from parties.metering.token_times import TokenTimes
from parties.options import RunOptions, draft_words

_BYTES = 1e6 / 8  # of a megabit
_FINISHED = 200  # number of finished cells on the live page

log = logging.getLogger(__name__)


class Watch:
    """Follows the cells of a run; written by the thread that drives them, read by any.

    Args:
        run: Name of the run, unique.
        folder: The run's folder; time series go below it.
        sweep: Progress of the sweep.
        clock: Source of time, in seconds.
    """

    def __init__(
        self, run: str, folder: Path, sweep: SweepProgress, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.run = run
        self._folder, self._sweep, self._clock = folder, sweep, clock
        self._lock = threading.Lock()
        self._cell: Cell | None = None
        self._links: tuple[LinkReading, ...] = ()
        self._timeline = Timeline("", clock)
        self._before: tuple[Timeline, tuple[LinkReading, ...]] = self._timeline, ()
        self._times: dict[str, float] | None = None
        self._statuses: Counter[str] = Counter()
        self._finished: list[dict[str, Any]] = []

    def begin(self, cell: Cell) -> None:
        """A cell starts."""
        with self._lock:
            if self._timeline.samples:
                self._before = self._timeline, self._links
            self._cell, self._links = cell, ()
            self._timeline = Timeline(cell.id, self._clock)

    def links(self, readings: Sequence[LinkReading]) -> None:
        """The links of the cell, once they are measured."""
        with self._lock:
            self._links = tuple(readings)

    def update(self, progress: Progress) -> None:
        """The parties' progress, by role."""
        with self._lock:
            self._timeline.add(progress)
            self._times = _times(progress)

    def note(self, what: str) -> None:
        """Ignored: actions of the driver itself are shown in the terminal only."""

    def end(self, record: Record, text: str | None) -> None:  # noqa: ARG002 - the text is the client's secret
        """A cell is over: saves its time series; if that fails, the run continues without it."""
        with self._lock:
            self._cell = None
            self._statuses[record.status.value] += 1
            self._finished = [*self._finished, _finished_cell(record)][-_FINISHED:]
        try:
            self._timeline.save(self._folder)
        except OSError as error:
            log.warning("the time series of cell %s is not kept: %s", record.id, error.strerror)

    def samples(self) -> Iterator[MetricSample]:
        """The driver's metrics."""
        with self._lock:
            cell, links, statuses, last = self._cell, self._links, dict(self._statuses), self._timeline.samples[-2:]
        for status, count in statuses.items():
            yield "mpcbench_cells_finished_total", {"status": status}, count
        yield "mpcbench_cells_left", {}, self._sweep.total - sum(statuses.values())
        yield "mpcbench_remaining_seconds", {}, self._sweep.seconds_left
        if cell is not None:
            yield RUN_INFO, info(cell), 1.0
            yield "mpcbench_cell_elapsed_seconds", {}, self._sweep.cell_seconds
        for link in links:
            yield from _link_samples(link, last)

    def page(self, cell: str, generation: int, seen: int) -> dict[str, Any]:
        """The update for the live page; of the previous cell as long as the current one has no samples.

        Args:
            cell: Id of the cell that the page shows.
            generation: Generation of that cell's time series.
            seen: Number of its samples that the page has.
        """
        with self._lock:
            line, links = (self._timeline, self._links) if self._timeline.samples else self._before
            now, finished = self._cell, list(self._finished)
            fresh = (line.cell, line.generation) != (cell, generation)
            samples = list(line.samples[0 if fresh else seen :])
            statuses, times = dict(self._statuses), self._times
        return {
            "run": self.run,
            "name": self._sweep.name,
            "total": self._sweep.total,
            "statuses": statuses,
            "elapsed": self._sweep.seconds,
            "left": self._sweep.seconds_left,
            "now": None if now is None else {**info(now), "title": str(now)},
            "links": [_capacity(link) for link in links],
            "finished": finished,
            "cell": line.cell,
            "generation": line.generation,
            "fresh": fresh,
            "samples": samples,
            "times": times,
        }


def info(cell: Cell) -> dict[str, str]:
    """The labels of `mpcbench_run_info`."""
    parameters = ", ".join(f"{name}={value}" for name, value in sorted(cell.policy.parameters.items()))
    plain = ("model", "seq_len", "new_tokens", *RunOptions.model_fields, "seed", "repeat")
    return {
        "cell": cell.id,
        "engine": str(cell.engine),
        "policy": cell.policy.name,
        "parameters": parameters,
        "network": cell.network.name,
        **{name: _text(getattr(cell, name)) for name in plain},
        "draft": draft_words(cell.draft),
    }


def _text(value: object) -> str:
    """A value, or pairs of names and values, as a label."""
    return ", ".join(f"{name}={each}" for name, each in value) if isinstance(value, tuple | BaseModel) else str(value)


def used(pair: str, samples: Sequence[Sample], bytes_per_second: float) -> float:
    """Share of a link's rate that was used between the last two samples; 0 with fewer than two samples."""
    if len(samples) < 2 or bytes_per_second <= 0:
        return 0.0
    first, last = samples[-2:]
    passed = last["t"] - first["t"]
    sent = last["pairs"].get(pair, 0) - first["pairs"].get(pair, 0)
    return max(0.0, sent / (passed * bytes_per_second)) if passed > 0 else 0.0


def _capacity(link: LinkReading) -> dict[str, Any]:
    """A link in the units of the page, bytes per second and seconds; None where nothing was requested or measured."""
    asked, measured = link.asked or {}, link.measured_after or link.measured_before or {}
    rate = asked.get("rate_mbit")
    return {
        "pair": f"{link.src}>{link.dst}",
        "asked_rate": None if rate is None else rate * _BYTES,
        "asked_rtt": None if link.asked is None else asked["rtt_ms"] / 1000,
        "asked_loss": None if link.asked is None else asked["loss_pct"] / 100,
        "measured_rate": measured["rate_mbit"] * _BYTES if measured else None,
        "measured_rtt": measured["rtt_ms"] / 1000 if measured else None,
    }


def _link_samples(link: LinkReading, last: Sequence[Sample]) -> Iterator[MetricSample]:
    pair, capacity = {"party": link.src, "peer": link.dst}, _capacity(link)
    names = {
        "asked_rate": "mpcbench_link_asked_bytes_per_second",
        "asked_rtt": "mpcbench_link_asked_rtt_seconds",
        "asked_loss": "mpcbench_link_asked_loss_ratio",
        "measured_rate": "mpcbench_link_measured_bytes_per_second",
        "measured_rtt": "mpcbench_link_measured_rtt_seconds",
    }
    yield from ((name, pair, capacity[key]) for key, name in names.items() if capacity[key] is not None)
    if capacity["measured_rate"]:
        yield "mpcbench_link_used_ratio", pair, used(capacity["pair"], last, capacity["measured_rate"])


def _times(progress: Progress) -> dict[str, float] | None:
    """TTFT, TPOT, ITL, tokens per second and acceptance of the tokens so far, on the clock of the client.

    A cell of `plain` runs on the referee's clock; None before the first token.
    """
    known = [state.times for role in ("client", "referee") if (state := progress.get(role)) is not None]
    return next((times.model_dump() for times in known if times is not None), None)


def _finished_cell(record: Record) -> dict[str, Any]:
    return {
        "title": str(record.cell),
        "status": record.status.value,
        "measured": record.status.measured,
        "seconds": (record.finished - record.started).total_seconds(),
        "times": None if record.serving is None else record.serving.model_dump(include=set(TokenTimes.model_fields)),
        "error": None if record.error is None else record.error.message,
    }
