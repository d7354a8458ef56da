"""TTFT, TPOT, ITL, tokens per second and acceptance in the report, in its tables for programs and in `compare`."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from pyarrow import parquet

from orchestrator.experiment.cells import Cell, expand
from orchestrator.records.record import Record
from orchestrator.records.store import RecordStore
from orchestrator.report import render
from orchestrator.report.bench_work import bench_work
from orchestrator.report.compare import Pair, compare
from orchestrator.report.figures import Panel, by_batch
from orchestrator.report.rows import rows
from orchestrator.report.serving import batch_rows, serving_rows
from tests.helpers import samples

CELLS = expand(samples.experiment(policies=["full"], seq_lens=[128], repeats=2))


def run(folder: Path, *passes: Sequence[float], cells: Sequence[Cell] = CELLS) -> Path:
    with RecordStore(folder) as store:
        for cell, seconds in zip(cells, passes, strict=False):
            store.append(served(cell, seconds))
    return folder


def served(cell: Cell, seconds: Sequence[float], **counts: int) -> Record:
    return samples.record(cell, serving=samples.serving(seconds, **counts))


def test_medians_of_the_repeats_and_percentiles_of_all_their_latencies() -> None:
    (row,) = serving_rows(rows([served(CELLS[0], [5.0, 1.0, 2.0]), served(CELLS[1], [3.0, 3.0, 4.0])]))
    assert (row.ttft_seconds, row.gaps, row.itl_p50_seconds, row.acceptance) == (4.0, 4, 2.5, None)
    assert row.words["ITL p99"] == "3.97 s"
    assert row.words["acceptance"] == "n/a"


def test_one_record_of_an_earlier_version_leaves_the_numbers_out() -> None:
    assert serving_rows(rows([served(CELLS[0], [5.0, 1.0]), samples.record(CELLS[1])])) == []


def test_the_report_names_the_numbers_and_says_what_the_first_token_covers(tmp_path: Path) -> None:
    page, text = (path.read_text() for path in render(run(tmp_path, [5.0, 1.0], [3.0, 3.0])))
    assert "the first token alone, since the prompt was shared" in " ".join(text.split())
    head, _, line = text[text.index("## Inference serving") :].split("\n\n")[2].splitlines()[:3]
    names, values = ([part.strip() for part in row.strip("|").split("|")] for row in (head, line))
    found = dict(zip(names, values, strict=True))
    expected = {"TTFT": "4 s", "TPOT": "3 s", "ITL p50": "2 s", "tokens per second": "0.333", "batch": "1"}
    assert {name: found[name] for name in expected} == expected
    assert re.search(r"<th>ITL p90</th>", page)
    (exported, *_) = csv.DictReader((tmp_path / "report.csv").read_text().splitlines())
    assert (float(exported["ttft_seconds"]), exported["batch"], exported["acceptance"]) == (4.0, "1", "")
    table = parquet.read_table(tmp_path / "report.parquet")
    assert table["itl_p99_seconds"].to_pylist() == [pytest.approx(2.98)]


def test_the_report_names_the_largest_part_of_recording_if_there_is_any(tmp_path: Path) -> None:
    _, without = render(run(tmp_path / "without", [5.0, 5.0]))
    assert "recording" not in without.read_text()
    recorded = samples.serving([5.0, 5.0]).model_copy(update={"recording_seconds": (0.0, 1.0)})
    with RecordStore(tmp_path / "with") as store:
        store.append(samples.record(CELLS[0], serving=recorded))
    for page in render(tmp_path / "with"):
        assert "at most 10 % of TPOT (crypten, full at 128 tokens, network none)" in page.read_text()


def test_compare_shows_both_sides_of_each_number(tmp_path: Path) -> None:
    (pair,) = compare(run(tmp_path / "a", [5.0, 1.0]), run(tmp_path / "b", [4.0, 0.5])).pairs
    assert "TTFT 5 s -> 4 s" in pair.serving
    assert "ITL p90 1 s -> 500 ms" in pair.serving
    assert "acceptance" not in pair.serving
    (old,) = rows([samples.record(CELLS[0])])
    assert Pair(old, pair.after).serving == ""


def test_throughput_and_latency_are_drawn_against_the_batch_for_each_network() -> None:
    cells = expand(samples.experiment(networks=["lan", "wan"], batch=[1, 4]))
    found = batch_rows(rows(samples.record(cell) for cell in cells))
    assert [(row.series, row.seq_len, row.batch) for row in found if row.network == "wan"] == [
        (f"crypten, {policy}", 512, batch) for policy in ("full", "mpcache") for batch in (1, 4)
    ]
    figure = by_batch(found, [Panel("Throughput", "tokens per second", lambda row: row.batch / row.seconds)])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Throughput, lan", "Throughput, wan"]
    assert all(axes.get_xlabel() == "batch (sequences)" for axes in figure.axes)
    assert batch_rows(rows(samples.record(cell) for cell in cells if cell.batch == 4)) == []


def test_the_benchs_own_work_is_the_wall_time_outside_the_protocol() -> None:
    record = served(CELLS[0], [10.0, 10.0])
    own = {"phase": "bench", "seconds": 4.0, "sent_bytes": 0}
    load = record.stages[0].model_copy(update={**own, "stage": "bench.load"})
    weights = record.stages[0].model_copy(update={**own, "stage": "setup.weights", "phase": "setup", "seconds": 6.0})
    record = record.model_copy(update={"stages": (*record.stages, load, weights)})
    protocol = sum(s.seconds for s in record.stages if s.party == "client" and s.phase in ("online", "offline"))
    whole = (record.finished - record.started).total_seconds()
    text = bench_work([record])
    assert text.startswith(f"{100 * (1 - protocol / whole):.0f} % of a cell's wall time")
    assert "loading the model 4 s, masking the weights 6 s" in text
    assert bench_work([samples.record(CELLS[0])]) == ""
