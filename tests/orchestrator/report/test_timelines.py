"""The time series of a cell in its report."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.experiment.cells import expand
from orchestrator.records.store import RecordStore
from orchestrator.records.timeline import Timeline
from orchestrator.report import render
from orchestrator.report.figures import as_svg
from orchestrator.report.timelines import MOST_CELLS, draw_timelines
from tests.helpers.samples import cell, experiment, failure, record
from tests.helpers.watching import Clock, progress_at


def save(folder: Path, of: str, seconds: int = 20, **changes: object) -> None:
    """Saves a time series as a run does."""
    clock = Clock()
    line = Timeline(of, clock)
    for t in range(seconds):
        line.add(progress_at(t, **changes))
        clock.now += 1
    line.save(folder)


@pytest.mark.slow
def test_the_report_shows_the_series_of_the_dashboards(tmp_path: Path) -> None:
    with RecordStore(tmp_path) as store:
        store.append(record())
    save(tmp_path, cell().id)
    html, _ = render(tmp_path)
    text = html.read_text()
    assert f'<figure id="series-{cell().id}">' in text
    for words in ("Tokens", "Stages on the clock of the client", "softmax", "Resident memory", "client to server"):
        assert words in text
    assert len(text) < 1_500_000


@pytest.mark.slow
def test_a_run_without_time_series_has_a_report_without_them(tmp_path: Path) -> None:
    with RecordStore(tmp_path) as store:
        store.append(record())
    assert "Time series" not in render(tmp_path)[0].read_text()


def test_a_damaged_time_series_does_not_break_the_report(tmp_path: Path) -> None:
    with RecordStore(tmp_path) as store:
        store.append(record())
    save(tmp_path, cell().id)
    next((tmp_path / "timeline").iterdir()).write_bytes(b"damaged")
    assert "Time series" not in render(tmp_path)[0].read_text()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"server": {"uptime_seconds": 1.0}},
        {"client": {"stages": {}, "tokens": 0}, "server": {"tokens": 0}},
        {"client": {"peers": {}}, "server": {"peers": {}}, "dealer": {"peers": {}}, "referee": {"peers": {}}},
    ],
    ids=["whole", "silent party", "no stages", "no traffic"],
)
def test_missing_series_are_left_out_of_the_figure(tmp_path: Path, changes: dict[str, Any]) -> None:
    save(tmp_path, cell().id, **changes)
    ((_, drawn),) = draw_timelines(tmp_path, [record()])
    assert len(drawn.axes) == 6
    assert "<svg" in as_svg(drawn, "x")


def test_a_cell_of_many_hours_makes_no_larger_figure(tmp_path: Path) -> None:
    save(tmp_path, cell().id, seconds=1200)
    ((_, drawn),) = draw_timelines(tmp_path, [record()])
    assert len(as_svg(drawn, "x")) < 250_000


def test_of_very_many_cells_those_that_failed_are_drawn_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.report.timelines.MOST_CELLS", 2)
    assert MOST_CELLS > 2
    cells = expand(experiment(seq_lens=[128, 256, 512], policies=["full"]))
    records = [record(cells[0]), record(cells[1]), failure(cells[2])]
    for one in cells:
        save(tmp_path, one.id)
    assert [drawn.id for drawn, _ in draw_timelines(tmp_path, records)] == [cells[2].id, cells[0].id]


def test_less_than_three_samples_are_not_a_series(tmp_path: Path) -> None:
    save(tmp_path, cell().id, seconds=2)
    assert draw_timelines(tmp_path, [record()]) == []


def test_the_figure_needs_no_colour(tmp_path: Path) -> None:
    save(tmp_path, cell().id)
    ((_, drawn),) = draw_timelines(tmp_path, [record()])
    memory = drawn.axes[4]
    assert len({line.get_linestyle() for line in memory.get_lines()}) == len(memory.get_lines()) == 4
