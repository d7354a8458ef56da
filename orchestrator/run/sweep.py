"""All cells of an experiment, in order; resumed by id, interrupted cleanly."""

import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from rich.console import Console

from orchestrator.experiment.cells import Cell
from orchestrator.experiment.experiment import Experiment
from orchestrator.predict.calibration import Calibration
from orchestrator.predict.prediction import predict
from orchestrator.records.record import Record
from orchestrator.records.snapshot import Snapshot
from orchestrator.records.store import RecordStore
from orchestrator.run.actors import PARTY_CLASS
from orchestrator.run.pending import NO_LIMIT, Budget, Spending, unfinished
from orchestrator.run.ray_session import ray_session
from orchestrator.run.repeated_failures import RepeatedFailures
from orchestrator.run.retry import Retry
from orchestrator.run.runner import Runner
from orchestrator.watch.observation import observing
from orchestrator.watch.terminal import SweepProgress, Views, view


@dataclass(frozen=True)
class SweepOutcome:
    """The outcome of a sweep.

    Attributes:
        records: The latest record of each cell that has one, in the order of the cells.
        interrupted: Whether the user stopped the sweep before its end.
        left: Cells that did not run because of a budget.
        refusal: That budget, in words; empty if there is none.
    """

    records: tuple[Record, ...]
    interrupted: bool
    left: tuple[Cell, ...] = ()
    refusal: str = ""


def run_sweep(
    experiment: Experiment,
    cells: Sequence[Cell],
    store: RecordStore,
    *,
    all_cells: Sequence[Cell] = (),
    address: str | None = None,
    retry: Retry = Retry.NONE,
    budget: Budget = NO_LIMIT,
    past: Sequence[Record] = (),
    calibration: Calibration | None = None,
    update: bool = False,
    console: Console | None = None,
    live: socket.socket | None = None,
    party_class: str = PARTY_CLASS,
) -> SweepOutcome:
    """Run the cells that have no final record yet; each record is on disk before the next cell starts.

    The first SIGINT or SIGTERM stops the cell that runs, records it as `interrupted` and cleans up; the second raises
    KeyboardInterrupt at once.

    Args:
        experiment: The experiment of the cells; the folder keeps a snapshot of it.
        cells: The cells, in the order to run them.
        store: The run's folder; its lock must be held.
        all_cells: All cells of the experiment, where only some of them are to run.
        address: The Ray cluster to use; see `ray_session`.
        retry: Whether cells that failed run again.
        budget: The limits of this call.
        past: Records of other runs that predictions may learn from.
        calibration: Calibration of this machine, for cells without a similar record.
        update: Whether to go on with an experiment that was edited since the run began.
        console: Console for the progress; standard output by default.
        live: Listens where the live page is to be served, if it is.
        party_class: Import path `module:Class` of what the actors wrap; for tests.

    Raises:
        StoreError: The folder cannot be used, or the experiment is not the one that it was started with.
        ClusterError: There is no cluster at the address.
        KeyboardInterrupt: The user insisted.
    """
    stop, refusal = threading.Event(), ""
    snapshot = Snapshot(store, experiment, all_cells or cells, update=update)
    pending = unfinished(cells, store.latest(), retry)
    left = list(pending)
    if pending:
        screen = console or Console()
        screen.print(f"{experiment.name}: cells to run: {len(pending)}; starting Ray", markup=False, highlight=False)
        sweep, spending = SweepProgress(experiment.name, len(pending)), Spending(budget)
        with (
            ray_session(address),
            stop_on_signals(stop),
            observing(experiment.name, store.folder, sweep, live) as observed,
            Runner(
                experiment.name,
                store.folder,
                observed.targets,
                stop,
                show_text=experiment.show_text,
                party_class=party_class,
                links_seen=observed.watch.links,
            ) as runner,
            view(screen, sweep) as terminal,
        ):
            shown = Views(terminal, observed.watch)
            known, repeated = [*past, *store.latest().values()], RepeatedFailures()
            while left and not stop.is_set():
                expected = [predict(later, known, calibration) for later in left]
                if refusal := spending.refusal(expected[0]):
                    break
                snapshot.check_prompt()
                sweep.begin([each.seconds for each in expected])
                shown.begin(left[0])
                cell = left.pop(0)
                record, text = repeated.record(cell, experiment.name), None
                if record is None:
                    record, text = runner.run(cell, shown.update, shown.note)
                    repeated.note(record)
                    spending.add(record)
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
