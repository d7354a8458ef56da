"""All cells of an experiment, in order; resumed by id, interrupted cleanly."""

import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console

from orchestrator.experiment.cells import Cell, expand
from orchestrator.experiment.experiment import Experiment
from orchestrator.predict.estimate import estimate
from orchestrator.records.record import Record
from orchestrator.records.snapshot import Frozen
from orchestrator.records.store import PATIENCE_S, RecordStore
from orchestrator.run.actors import PARTY_CLASS
from orchestrator.run.alike import Alike
from orchestrator.run.pending import NO_LIMIT, Budget, Purse, unfinished
from orchestrator.run.ray_session import ray_session
from orchestrator.run.retry import Retry
from orchestrator.run.runner import Runner
from orchestrator.watch.observation import observing
from orchestrator.watch.terminal import Course, Views, view


@dataclass(frozen=True)
class SweepOutcome:
    """What there is after a sweep.

    Attributes:
        records: The latest record of each cell that has one, in the order of the cells.
        interrupted: Whether the user stopped the sweep before its end.
        left: Cells that a budget left for another time.
        refusal: Which budget, in words; empty if it was none.
    """

    records: tuple[Record, ...]
    interrupted: bool
    left: tuple[Cell, ...] = ()
    refusal: str = ""


def run_sweep(
    experiment: Experiment,
    cells: Sequence[Cell],
    out: Path,
    *,
    address: str | None = None,
    retry: Retry = Retry.NONE,
    budget: Budget = NO_LIMIT,
    past: Sequence[Record] = (),
    update: bool = False,
    console: Console | None = None,
    live: socket.socket | None = None,
    party_class: str = PARTY_CLASS,
) -> SweepOutcome:
    """Run the cells that have no final record yet; each record is on disk before the next cell starts.

    The first SIGINT or SIGTERM stops the cell that runs, records it as `interrupted` and cleans up; the second raises
    KeyboardInterrupt at once.

    Args:
        experiment: What the cells come from; the folder keeps a snapshot of it.
        cells: The cells, in the order to run them.
        out: The run's folder.
        address: The Ray cluster to use; see `ray_session`.
        retry: Whether cells that failed run again.
        budget: What this call may use.
        past: Records of other runs that estimates may learn from.
        update: Whether to go on with an experiment that was edited since the run began.
        console: Where to show what happens; standard output by default.
        live: Listens where the live page is to be served, if it is.
        party_class: Import path `module:Class` of what the actors wrap; for tests.

    Raises:
        StoreError: The folder cannot be used, or the experiment is not the one that it was started with.
        ClusterError: There is no cluster at the address.
        KeyboardInterrupt: The user insisted.
    """
    stop, refusal = threading.Event(), ""
    with RecordStore(out, PATIENCE_S) as store:
        snapshot = Frozen(store, experiment, expand(experiment), update=update)
        pending = unfinished(cells, store.latest(), retry)
        left = list(pending)
        if pending:
            course, purse = Course(experiment.name, len(pending)), Purse(budget)
            with (
                ray_session(address),
                stop_on_signals(stop),
                observing(experiment.name, out, course, live) as observed,
                Runner(
                    experiment.name,
                    out,
                    observed.targets,
                    stop,
                    show_text=experiment.show_text,
                    party_class=party_class,
                    links_seen=observed.watch.links,
                ) as runner,
                view(console or Console(), course) as terminal,
            ):
                shown = Views(terminal, observed.watch)
                known, alike = [*past, *store.latest().values()], Alike()
                while left and not stop.is_set():
                    expected = [estimate(later, known) for later in left]
                    if refusal := purse.refusal(expected[0]):
                        break
                    snapshot.check_prompt()
                    course.begin([guess.seconds for guess in expected])
                    shown.begin(left[0])
                    cell = left.pop(0)
                    record, text = alike.record(cell, experiment.name), None
                    if record is None:
                        record, text = runner.run(cell, shown.update, shown.note)
                        alike.note(record)
                        purse.pay(record)
                    store.append(record)
                    known.append(record)
                    shown.end(record, text)
                observed.linger()
        latest = store.latest()
    records = tuple(latest[cell.id] for cell in cells if cell.id in latest)
    return SweepOutcome(records, stop.is_set(), tuple(left), refusal)


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
