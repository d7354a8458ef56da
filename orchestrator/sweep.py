"""All cells of an experiment, in order; resumed by id, interrupted cleanly."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console

from orchestrator.actors import PARTY_CLASS
from orchestrator.cells import Cell
from orchestrator.estimate import estimate
from orchestrator.experiment import Experiment
from orchestrator.live import Course, view
from orchestrator.record import Record, Status
from orchestrator.runner import Runner
from orchestrator.session import ray_session
from orchestrator.store import RecordStore
from orchestrator.targets import TargetFile

TARGETS = "targets.json"


@dataclass(frozen=True)
class SweepOutcome:
    """What there is after a sweep.

    Attributes:
        records: The latest record of each cell that has one, in the order of the cells.
        interrupted: Whether the user stopped the sweep before its end.
    """

    records: tuple[Record, ...]
    interrupted: bool


def run_sweep(
    experiment: Experiment,
    cells: Sequence[Cell],
    out: Path,
    *,
    address: str | None = None,
    show_text: bool = False,
    console: Console | None = None,
    party_class: str = PARTY_CLASS,
) -> SweepOutcome:
    """Run the cells that have no `ok` record yet; each record is on disk before the next cell starts.

    The first SIGINT or SIGTERM stops the cell that runs, records it as `interrupted` and cleans up; the second raises
    KeyboardInterrupt at once.

    Args:
        experiment: What the cells come from; a copy of it goes into the folder.
        cells: The cells, in the order to run them.
        out: The run's folder.
        address: The Ray cluster to use; see `ray_session`.
        show_text: Whether to show the decoded text, the client's secret, in the terminal.
        console: Where to show what happens; standard output by default.
        party_class: Import path `module:Class` of what the actors wrap; for tests.

    Raises:
        StoreError: The folder cannot be used.
        ClusterError: There is no cluster at the address.
        KeyboardInterrupt: The user insisted.
    """
    stop = threading.Event()
    with RecordStore(out) as store:
        store.freeze(experiment, cells)
        known = store.latest()
        todo = [cell for cell in cells if cell.id not in known or known[cell.id].status is not Status.OK]
        if todo:
            course = Course(experiment.name, len(todo))
            with (
                ray_session(address),
                stop_on_signals(stop),
                TargetFile(out / TARGETS, experiment.name) as targets,
                Runner(experiment.name, out, targets, stop, show_text=show_text, party_class=party_class) as runner,
                view(console or Console(), course) as shown,
            ):
                past = list(known.values())
                for index, cell in enumerate(todo):
                    if stop.is_set():
                        break
                    course.begin([estimate(later, past).seconds for later in todo[index:]])
                    shown.begin(cell)
                    outcome = runner.run(cell, shown.update)
                    store.append(outcome.record)
                    past.append(outcome.record)
                    shown.end(outcome.record, outcome.text)
        latest = store.latest()
    return SweepOutcome(tuple(latest[cell.id] for cell in cells if cell.id in latest), stop.is_set())


@contextmanager
def stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """In the block the first SIGINT or SIGTERM sets `stop`, and any further one raises KeyboardInterrupt.

    Outside the main thread signals are left as they are: Python cannot handle them there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(_signal: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
