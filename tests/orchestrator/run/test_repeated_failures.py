"""Cells that must fail like an earlier one are recorded without running."""

import pytest

from orchestrator.experiment.cells import Cell, expand
from orchestrator.records.assemble import failed_record
from orchestrator.records.record import Record, Status
from orchestrator.run.repeated_failures import RepeatedFailures
from tests.helpers import samples

MESSAGE = "prompt.text_file: short.txt: the text has 3 tokens, seq_len asks for 128; give a longer text"


def failed(cell: Cell, status: Status = Status.CONFIG_ERROR, role: str = "referee") -> Record:
    error = {"status": status, "message": MESSAGE, "role": role}
    return failed_record(cell, error, (), samples.START, samples.START, experiment="a")


CELLS = expand(samples.experiment(engines=["plain", "fss"], networks=["none", "lan"], seq_lens=[128, 256]))


def test_cells_with_the_same_model_prompt_and_length_are_not_run() -> None:
    repeated = RepeatedFailures()
    repeated.note(failed(CELLS[0]))
    for cell in CELLS:
        record = repeated.record(cell, "a")
        assert (record is not None) == (cell.seq_len == CELLS[0].seq_len)
        if record is not None:
            assert (record.id, record.status, record.experiment) == (cell.id, Status.CONFIG_ERROR, "a")
            assert record.error is not None
            assert record.error.message == f"not run, since a cell before it failed of the same cause: {MESSAGE}"


@pytest.mark.parametrize(
    ("status", "role"),
    [
        (Status.CONFIG_ERROR, "client"),
        (Status.CONFIG_ERROR, ""),
        (Status.PARTY_DIED, "referee"),
        (Status.OOM, "referee"),
    ],
)
def test_transient_failures_do_not_skip_later_cells(status: Status, role: str) -> None:
    alike = RepeatedFailures()
    alike.note(failed(CELLS[0], status, role))
    alike.note(samples.record(CELLS[1]))
    assert [alike.record(cell, "a") for cell in CELLS] == [None] * len(CELLS)


def test_unreadable_heads_skip_only_their_own_cells() -> None:
    gate = {"name": "locret", "head": "bad.safetensors"}
    other = {"name": "locret", "head": "good.safetensors"}
    cells = expand(samples.experiment(policies=["full", gate, other], seq_lens=[128], engines=["plain", "fss"]))
    alike = RepeatedFailures()
    alike.note(failed(next(cell for cell in cells if cell.policy.parameters.get("head") == "bad.safetensors")))
    skipped = [cell for cell in cells if alike.record(cell, "a") is not None]
    assert {cell.policy.parameters.get("head") for cell in skipped} == {"bad.safetensors"}
    assert len(skipped) == 2
