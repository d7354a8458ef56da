"""Comparison of two runs: exact for counts, and conservative for noisy times."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator.cli import main
from orchestrator.experiment.cells import Cell, expand
from orchestrator.records.record import Record
from orchestrator.records.store import RecordStore, StoreError
from orchestrator.report.compare import compare
from tests.helpers import samples

CELLS = expand(samples.experiment(seq_lens=[128], repeats=3))


def write(folder: Path, *records: Record) -> Path:
    with RecordStore(folder) as store:
        for record in records:
            store.append(record)
    return folder


def run(folder: Path, *seconds: float, cells: tuple[Cell, ...] = CELLS, **changes: Any) -> Path:
    full = [cell for cell in cells if cell.policy.name == "full"]
    return write(folder, *(samples.record(cell, seconds=s, **changes) for cell, s in zip(full, seconds, strict=False)))


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ((10, 11, 12), (7, 8, 9), "faster"),
        ((7, 8, 9), (10, 11, 12), "slower"),
        ((7, 8, 9), (8.5, 11, 12), "no difference that the repeats show"),
        ((7, 8, 9), (7, 8, 9), "no difference that the repeats show"),
        ((7,), (70,), "one run each: no verdict"),
    ],
)
def test_a_verdict_needs_repeats_that_do_not_overlap(
    tmp_path: Path, before: tuple[float, ...], after: tuple[float, ...], verdict: str
) -> None:
    (pair,) = compare(run(tmp_path / "a", *before), run(tmp_path / "b", *after)).pairs
    assert pair.verdict == verdict
    assert pair.counts == "equal"


def test_bytes_and_rounds_are_compared_exactly(tmp_path: Path) -> None:
    one = samples.record(CELLS[0])
    assert one.totals is not None
    online = one.totals.online.model_copy(update={"rounds": one.totals.online.rounds + 2})
    other = one.model_copy(update={"totals": one.totals.model_copy(update={"online": online})})
    (pair,) = compare(write(tmp_path / "a", one), write(tmp_path / "b", other)).pairs
    assert pair.counts == "rounds 5,400 -> 5,401"


def test_cells_of_only_one_run_and_other_differences_are_reported(tmp_path: Path) -> None:
    both = compare(
        write(tmp_path / "a", samples.record(CELLS[0]), samples.record(CELLS[-1])),
        write(tmp_path / "b", samples.record(CELLS[0], versions={"torch": "2.11.0"})),
    )
    assert [row.first.cell.policy.name for row in both.only_before] == ["mpcache"]
    assert both.only_after == ()
    assert "torch: 2.13.0 -> 2.11.0" in both.environment


def test_failed_cells_and_warm_ups_are_not_compared(tmp_path: Path) -> None:
    warm = expand(samples.experiment(seq_lens=[128], warmup=1))[0]
    with pytest.raises(StoreError, match="no measured cell"):
        compare(write(tmp_path / "a", samples.failure(CELLS[0]), samples.record(warm)), tmp_path / "b")


def call(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(main.app, ["compare", *map(str, arguments)])
    return done.exit_code, done.output


def test_the_command_fails_only_beyond_the_limit_that_it_was_given(tmp_path: Path) -> None:
    a, b = run(tmp_path / "a", 10, 10.5), run(tmp_path / "b", 12, 12.5)
    assert call(a, b)[0] == 0
    assert call(a, b, "--fail-if-slower", 20)[0] == 0
    code, output = call(a, b, "--fail-if-slower", 10)
    assert code == 1
    assert "slower" in output
    assert "12.2 (12 to 12.5)" in output


def test_times_of_milliseconds_keep_three_digits_and_cells_of_only_one_run_are_listed(tmp_path: Path) -> None:
    a = run(tmp_path / "a", 0.00465)
    code, output = call(a, run(tmp_path / "b", 0.00472))
    assert code == 0
    assert "0.00465" in output
    assert "0.00472" in output
    both = write(tmp_path / "c", samples.record(CELLS[0]), samples.record(CELLS[-1]))
    assert f"only in {both}: crypten, mpcache, 128 tokens, network none\n" in call(both, a)[1].replace("\n  ", " ")


def test_runs_without_anything_in_common_are_bad_input(tmp_path: Path) -> None:
    other = expand(samples.experiment(seq_lens=[256]))
    code, output = call(run(tmp_path / "a", 1), run(tmp_path / "b", 1, cells=other))
    assert code == 2
    assert "no measurement in common" in output
    assert call(tmp_path / "nothing", tmp_path / "a")[0] == 2
