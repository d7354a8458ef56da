"""The life of a cell: place, connect, run, watch, collect; or fail all parties at once and record why."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import ray

from netem import LinkReading
from orchestrator.experiment.cells import Cell
from orchestrator.records.assemble import build_record, failed_record
from orchestrator.records.record import Record, Status
from orchestrator.run.actors import PARTY_CLASS
from orchestrator.run.deadline import Deadline, Interrupted, Overdue
from orchestrator.run.failures import CellFailure, Progress
from orchestrator.run.group import PartyGroup, Results
from orchestrator.run.links import LinkMeasurements
from orchestrator.run.placement import PlacementError
from orchestrator.run.preflight import require_disk, require_memory
from orchestrator.run.slots import remarks, reserve
from orchestrator.run.stopwatch import Stopwatch
from orchestrator.watch.targets import TargetFile
from parties.engines import OWN_LINKS
from parties.errors import ModelError
from parties.options import HOW
from parties.roles.job import Job

_STACKS = "stacks"


class Outcome(NamedTuple):
    """A cell's record, and the client's text if the run is to show it; the text is in no record."""

    record: Record
    text: str | None = None


class Runner:
    """Runs cells one after the other; parties stay up between cells that can share them.

    Use it in a `with` statement: on leaving, the parties are stopped.

    Args:
        experiment: Name of the experiment.
        folder: The run's folder; stacks of hung parties go below it.
        targets: Receives the exporters of each new group of parties.
        stop: Set when the user requests a stop.
        show_text: Whether the client hands out the decoded text.
        party_class: Import path `module:Class` of what the actors wrap.
        links_seen: Called with the links of a cell, as requested and as measured.
    """

    def __init__(
        self,
        experiment: str,
        folder: Path,
        targets: TargetFile,
        stop: threading.Event,
        *,
        show_text: bool = False,
        party_class: str = PARTY_CLASS,
        links_seen: Callable[[Sequence[LinkReading]], None] = lambda _: None,
    ) -> None:
        self._experiment = experiment
        self._folder = folder
        self._targets = targets
        self._stop = stop
        self._show_text = show_text
        self._party_class = party_class
        self._links_seen = links_seen
        self._group: PartyGroup | None = None
        self._group_key: tuple[Any, ...] = ()
        self._admitted: Mapping[str, int] = {}
        self._remarks: tuple[str, ...] = ()
        self._measurements = LinkMeasurements()
        self._refused: dict[str, CellFailure] = {}

    def run(
        self, cell: Cell, watch: Callable[[Progress], None], note: Callable[[str], None] = lambda _: None
    ) -> Outcome:
        """Run one cell; its outcome becomes its record, also if it fails.

        Args:
            cell: The cell.
            watch: Called about three times per second with the progress of all roles.
            note: Called with the driver's own steps, in words.
        """
        stopwatch = Stopwatch()
        deadline = Deadline(cell.cell_timeout_s, self._stop)
        self._measurements = LinkMeasurements()
        if (known := self._refused.get(numbers_of(cell))) is not None:
            return Outcome(failed_record(cell, known.fields, (), *stopwatch.read(), **self._noted))
        try:
            answers = self._answers(cell, deadline, watch, note)
        except BaseException as error:
            try:
                failure = self._failure(cell, error)
            finally:
                self._kill()
            if failure is None:
                raise
            if failure.status == Status.OUT_OF_RANGE:
                seen = f"{failure.message}; seen in cell {cell.id}, which computes the same numbers"
                self._refused[numbers_of(cell)] = replace(failure, message=seen)
            record = failed_record(cell, failure.fields, self._measurements.readings, *stopwatch.read(), **self._noted)
            return Outcome(record)
        record = build_record(cell, answers, self._measurements.readings, *stopwatch.read(), **self._noted)
        return Outcome(record, answers["client"].text if self._show_text else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._group is not None:
            self._group.close()
            self._group = None
        self._kill()

    def _answers(
        self, cell: Cell, deadline: Deadline, watch: Callable[[Progress], None], note: Callable[[str], None]
    ) -> Results:
        """The cell, between the measurements of its links."""

        def measuring(what: str) -> None:
            deadline.check()
            note(what)

        group = self._group_for(cell, deadline)
        self._measurements = LinkMeasurements(group.links, measuring)
        self._measurements.before()
        self._links_seen(self._measurements.readings)
        answers = group.run(job_of(cell, show_text=self._show_text), deadline, watch)
        self._measurements.after()
        self._links_seen(self._measurements.readings)
        return answers

    @property
    def _noted(self) -> dict[str, Any]:
        """The driver's part of a record."""
        measurements = self._measurements
        noted = {"experiment": self._experiment, "warnings": (*measurements.warnings, *self._remarks)}
        return noted | {"shaping": measurements.backend, "shaping_details": measurements.details}

    def _group_for(self, cell: Cell, deadline: Deadline) -> PartyGroup:
        links = cell.network if cell.engine.name in OWN_LINKS else cell.network.tls  # what cannot change under a model
        key = (cell.model, cell.engine, cell.gpu, links, cell.shaping, cell.timeout_s, *cell.data_ports.items())
        if self._group is not None and key == self._group_key:
            if self._group.network != cell.network:
                self._group.move_to(cell.network, cell.shaping, deadline)
            require_disk(cell, self._group.placement, deadline)
            self._admitted = require_memory(cell, self._group.placement, deadline, self._admitted)
            return self._group
        if self._group is not None:
            self._group.close()
            self._group = None
        require_model(cell.model)
        placement, self._admitted = reserve(cell, deadline)
        self._remarks = remarks(cell, placement)
        self._group = PartyGroup.start(
            placement, deadline, cell.timeout_s, cell.data_ports, cell.network, cell.shaping, self._party_class
        )
        self._remarks += self._group.remarks
        self._group_key = key
        self._targets.write(self._group.exporters)
        return self._group

    def _failure(self, cell: Cell, error: BaseException) -> CellFailure | None:
        """The failure to record; None if the error is not the cell's, but a bug or the user's second Ctrl-C."""
        match error:
            case CellFailure(status=Status.TIMEOUT):
                error.message += self._stacks(cell)
                return error
            case CellFailure():
                return error
            case Interrupted():
                return CellFailure(Status.INTERRUPTED, "stopped by the user; run the same command again to resume")
            case PlacementError():
                return CellFailure(Status.UNSUPPORTED, str(error))
            case ray.exceptions.RayError():
                return CellFailure(Status.PARTY_DIED, f"Ray failed: {type(error).__name__}; see `ray status`")
            case Overdue():
                overdue = self._overdue(cell)
                overdue.message += self._stacks(cell)
                return overdue
        return None

    def _overdue(self, cell: Cell) -> CellFailure:
        progress: Progress = {} if self._group is None else self._group.progress
        seen = ", ".join(f"{role} in {last.state}/{last.stage}" for role, last in progress.items() if last is not None)
        message = (
            f"the cell took longer than cell_timeout_s: {cell.cell_timeout_s:g} (last seen: {seen or 'starting'}); "
            f"give it more time, or look where it hangs"
        )
        return CellFailure(Status.TIMEOUT, message) if self._group is None else self._group.overdue(message)

    def _stacks(self, cell: Cell) -> str:
        """Save the stacks of all parties, and say where."""
        if self._group is None:
            return ""
        path = self._folder / _STACKS / f"{cell.id}.txt"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self._group.stacks(), encoding="utf-8")
        except OSError as error:  # the record matters more, and a full disk is an error there, too
            return f"; stacks of all parties could not be written to {path}: {error.strerror}"
        return f"; stacks of all parties: {_STACKS}/{path.name}"

    def _kill(self) -> None:
        if self._group is not None:
            self._group.kill()
            self._group = None
        self._targets.remove()


def job_of(cell: Cell, *, show_text: bool) -> dict[str, Any]:
    """The cell as every party sees it."""
    job = Job.model_validate(
        {
            "engine": cell.engine.name,
            "model": cell.model,
            "policy": cell.policy,
            "prompt": cell.prompt,
            "seq_len": cell.seq_len,
            "new_tokens": cell.new_tokens,
            "batch": cell.batch,
            "options": cell.options,
            "randomness": cell.engine.randomness or "private",
            "gpu": cell.gpu,
            "seed": cell.seed,
            "show_text": show_text,
        }
    )
    return job.model_dump()


def numbers_of(cell: Cell) -> str:
    """A key of the numbers that a cell computes: its job without the options that change only how.

    If one cell leaves the range of its engine, so does every cell with the same key; it need not run.
    """
    job = Job.model_validate(job_of(cell, show_text=False))
    return job.model_dump_json(exclude={"gpu": True, "show_text": True, "options": set(HOW)})


def require_model(model: str) -> None:
    """Refuses a model that cannot be found here.

    Raises:
        CellFailure: If the model cannot be found or is of an unknown kind.
    """
    from parties.models import load_spec  # reads files of the model; not needed to import this module

    try:
        load_spec(model)
    except ModelError as error:
        raise CellFailure(Status.CONFIG_ERROR, str(error)) from error
