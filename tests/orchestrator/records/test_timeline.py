"""The time series of a cell: bounded, complete, and missing if it cannot be read."""

import gzip
import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.records import timeline
from orchestrator.records.timeline import MOST_SAMPLES, Timeline, load, path_of, sample_of
from tests.helpers.watching import Clock, progress_at

CELL = "0123456789abcdef"


def filled(seconds: int, per_second: int = 3) -> Timeline:
    """A time series of a cell that the driver polled several times per second."""
    clock = Clock()
    line = Timeline(CELL, clock)
    for step in range(seconds * per_second):
        line.add(progress_at(step / per_second))
        clock.now += 1 / per_second
    return line


def test_about_one_sample_per_second_is_kept_at_any_update_rate() -> None:
    times = [sample["t"] for sample in filled(30).samples]
    assert len(times) == 30
    assert all(0.9 <= later - earlier <= 1.4 for earlier, later in pairwise(times))


@given(st.integers(1, 20 * MOST_SAMPLES))
@settings(max_examples=15, deadline=None)
def test_a_long_cell_loses_resolution_but_neither_its_begin_nor_its_end(seconds: int) -> None:
    line = filled(seconds, per_second=1)
    times = [sample["t"] for sample in line.samples]
    assert len(times) <= MOST_SAMPLES
    assert times[0] == 0
    assert times == sorted(times)
    assert seconds - times[-1] <= 2 ** (line.generation + 1)
    assert line.generation == 0 or seconds > MOST_SAMPLES


def test_a_party_without_progress_is_left_out_until_it_reports_again() -> None:
    clock = Clock()
    line = Timeline(CELL, clock)
    for t in range(5):
        unchanged = {"uptime_seconds": 11.0} if 1 <= t < 4 else {}
        line.add(progress_at(t, server=unchanged))
        clock.now += 1
    assert ["server" in sample["parties"] for sample in line.samples] == [True, True, False, False, True]
    assert all("client" in sample["parties"] for sample in line.samples)


def test_parties_that_have_not_reported_yet_are_not_an_error() -> None:
    line = Timeline(CELL)
    assert line.add({"client": None, "server": None}) == {"t": 0.0, "parties": {}, "stages": {}, "pairs": {}}


def test_the_stages_of_a_plain_cell_are_those_of_the_referee() -> None:
    own = {"tokens": 3, "stages": {"bench.reference": [2.0, 0.0, 0]}}
    assert sample_of(1.0, progress_at(1.0))["stages"]["softmax"][1] == 60.0
    assert sample_of(1.0, progress_at(1.0, referee=own))["stages"] == {"bench.reference": [2.0, 0.0, 0]}


def test_a_saved_time_series_is_loaded_unchanged_and_is_small(tmp_path: Path) -> None:
    line = filled(600)
    line.save(tmp_path)
    assert load(tmp_path, CELL) == line.samples
    assert [path.name for path in (tmp_path / timeline.FOLDER).iterdir()] == [f"{CELL}.json.gz"]
    assert path_of(tmp_path, CELL).stat().st_size < 100_000


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no gzip",
        gzip.compress(b"{"),
        gzip.compress(b"[]"),
        gzip.compress(json.dumps({"format": 99, "samples": []}).encode()),
        gzip.compress(b'{"format": 1}'),
        gzip.compress(b"x" * 1000)[:50],
    ],
    ids=["empty", "no gzip", "truncated", "a list", "another format", "no samples", "cut"],
)
def test_a_file_that_cannot_be_read_counts_as_missing(tmp_path: Path, content: bytes) -> None:
    path = path_of(tmp_path, CELL)
    path.parent.mkdir()
    path.write_bytes(content)
    assert load(tmp_path, CELL) == []


def test_where_there_is_no_file_there_are_no_samples(tmp_path: Path) -> None:
    assert load(tmp_path, CELL) == []
