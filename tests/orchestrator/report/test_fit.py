"""Derived results of a report: a fitted model, speed-ups, and tables for other programs."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from netem import LinkReading
from orchestrator.experiment.cells import expand
from orchestrator.records.record import Record
from orchestrator.records.store import RecordStore
from orchestrator.report import render
from orchestrator.report.export import csv_of, latex_of, parquet_of
from orchestrator.report.fit import fits
from orchestrator.report.rows import against_crypten, rows
from tests.helpers import samples

NETWORKS = {"lan": (0.8, 3000.0), "wan-1g-10ms": (10.0, 1000.0), "wan": (40.0, 400.0)}


def linked(record: Record, rtt_ms: float, rate_mbit: float) -> Record:
    measured = {"rtt_ms": rtt_ms, "rate_mbit": rate_mbit}
    pairs = (("client", "server"), ("server", "client"))
    links = tuple(LinkReading(src=src, dst=dst, measured_before=measured) for src, dst in pairs)
    return record.model_copy(update={"links": links})


def following(compute: float, waits: float, noise: tuple[float, ...] = (0.0, 0.0, 0.0)) -> list[Record]:
    """Records of a run on three networks whose times follow the model, but for some noise."""
    cells = expand(samples.experiment(policies=["full"], seq_lens=[128], networks=list(NETWORKS)))
    records = []
    for cell, (rtt, rate), off in zip(cells, NETWORKS.values(), noise, strict=True):
        totals = samples.record(cell).totals
        assert totals is not None
        rounds = totals.online.rounds / cell.new_tokens
        sent = totals.online.sent_bytes["client"] / cell.new_tokens
        seconds = compute + waits * rounds * rtt / 2e3 + sent * 8 / (rate * 1e6)
        records.append(linked(samples.record(cell, seconds=seconds * (1 + off)), rtt, rate))
    return records


@given(st.floats(0.1, 50), st.floats(0.5, 3))
def test_the_fit_recovers_the_model_and_predicts_other_presets(compute: float, waits: float) -> None:
    (fit,) = fits(rows(following(compute, waits)))
    assert fit.compute == pytest.approx(compute, rel=1e-3, abs=1e-3)
    assert fit.waits == pytest.approx(waits, rel=1e-3)
    assert fit.worst < 1e-6
    predicted = dict(fit.predicted)
    assert not set(predicted) & set(NETWORKS)
    assert predicted["wan-100m-80ms"] > max(point.measured for point in fit.points) - compute


def test_residuals_show_outliers() -> None:
    (fit,) = fits(rows(following(2.0, 1.0, (0.2, -0.2, 0.1))))
    assert fit.worst > 0.03


def test_one_network_or_links_that_were_not_measured_give_no_fit() -> None:
    assert fits(rows(following(1.0, 1.0)[:1])) == []
    bare = [samples.record(cell) for cell in expand(samples.experiment(networks=["lan", "wan"]))]
    assert fits(rows(bare)) == []


@pytest.mark.slow
def test_seconds_are_drawn_against_the_link_where_there_are_several(tmp_path: Path) -> None:
    for name, records in (("three", following(2.0, 1.0)), ("one", following(2.0, 1.0)[:1])):
        (tmp_path / name).mkdir()
        with RecordStore(tmp_path / name) as store:
            for record in records:
                store.append(record)
        render(tmp_path / name)
    drawn = {name: (tmp_path / name / "figures" / "links.png").exists() for name in ("three", "one")}
    assert drawn == {"three": True, "one": False}
    page = (tmp_path / "three" / "report.html").read_text()
    assert all(label in page for label in ("round trip, measured (ms)", "rate, measured (Mbit/s)", ">0.8<", ">3,000<"))


def test_speed_up_is_against_the_same_cell_of_crypten_with_either_randomness() -> None:
    seconds = {"crypten": 30.0, "crypten-stock": 20.0, "fss": 2.0}
    stock = {"name": "crypten", "randomness": "stock"}
    cells = expand(samples.experiment(engines=["crypten", stock, "fss"], seq_lens=[128], policies=["full"]))
    found = against_crypten(rows(samples.record(cell, seconds=seconds[str(cell.engine)]) for cell in cells))
    assert [(one.row.series, one.base.series, one.seconds) for one in found] == [
        ("crypten, full", "crypten-stock, full", pytest.approx(2 / 3)),
        ("fss, full", "crypten, full", 15.0),
        ("fss, full", "crypten-stock, full", 10.0),
    ]


def test_warm_ups_are_in_no_row() -> None:
    cells = expand(samples.experiment(seq_lens=[128], policies=["full"], warmup=2, repeats=3))
    (row,) = rows(samples.record(cell, seconds=100.0 if cell.warmup else 1.0) for cell in cells)
    assert (len(row.records), row.high) == (3, 1.0)


def test_csv_holds_plain_numbers() -> None:
    measured = rows(samples.record(cell) for cell in expand(samples.experiment()))
    lines = list(csv.DictReader(io.StringIO(csv_of(measured))))
    assert [float(line["seconds_per_token"]) for line in lines] == [row.seconds for row in measured]
    assert {line["policy"] for line in lines} == {"full", "mpcache"}


def test_parquet_holds_the_rows_of_the_csv_with_types() -> None:
    measured = rows(samples.record(cell) for cell in expand(samples.experiment()))
    table = parquet.read_table(io.BytesIO(parquet_of(measured))).to_pylist()
    lines = list(csv.DictReader(io.StringIO(csv_of(measured))))
    assert [line.keys() for line in table] == [line.keys() for line in lines]
    for typed, text in zip(table, lines, strict=True):
        assert typed["policy"] == text["policy"]
        assert typed["seconds_per_token"] == float(text["seconds_per_token"])
        assert typed["tokens_match"] is {"True": True, "False": False, "": None}[text["tokens_match"]]
    assert isinstance(table[0]["seq_len"], int)
    assert isinstance(table[0]["seconds_per_token"], float)


@pytest.mark.parametrize("changes", [{}, {"policies": [{"name": "mpcache", "share_from": 3}], "repeats": 2}])
def test_latex_has_as_many_cells_in_each_line_and_escapes_names(changes: dict[str, Any]) -> None:
    text = latex_of(rows(samples.record(cell) for cell in expand(samples.experiment(**changes))))
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in body} == {6}
    assert "share_from" not in text
    assert text.count("_") == text.count(r"\_")
