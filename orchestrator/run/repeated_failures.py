"""Fails cells without running them if the referee could not read the same inputs for an earlier cell."""

from datetime import UTC, datetime
from typing import Any

from orchestrator.experiment.cells import Cell
from orchestrator.records.assemble import failed_record
from orchestrator.records.record import CellError, Record, Status

_Inputs = tuple[Any, ...]


class RepeatedFailures:
    """The inputs that the referee could not read; later cells with the same inputs fail without being run.

    The referee reads model, prompt and heads in the same way for every engine, network and repeat. Other errors of the
    status `config_error`, such as a port in use, may not recur in the next cell.
    """

    def __init__(self) -> None:
        self._failed: dict[_Inputs, CellError] = {}

    def note(self, record: Record) -> None:
        """Notes the record of a finished cell."""
        error = record.error
        if error is not None and error.status is Status.CONFIG_ERROR and error.role == "referee":
            self._failed.setdefault(_inputs(record.cell), error)

    def record(self, cell: Cell, experiment: str) -> Record | None:
        """The record of a cell that must fail; None if it may run."""
        error = self._failed.get(_inputs(cell))
        if error is None:
            return None
        now = datetime.now(UTC)
        return failed_record(cell, _repeated(error), (), now, now, experiment=experiment)


def _inputs(cell: Cell) -> _Inputs:
    trained = cell.policy.name if "head" in cell.policy.parameters else ""
    head = cell.policy.parameters.get("head")
    return cell.model, cell.prompt.model_dump_json(), cell.seq_len, cell.new_tokens, trained, head


def _repeated(error: CellError) -> CellError:
    message = f"not run, since a cell before it failed of the same cause: {error.message}"
    return CellError(status=error.status, message=message, role=error.role)
