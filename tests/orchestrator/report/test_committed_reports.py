"""The reports under docs/results/ are those of their records, which are those of their examples."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.results.add import measurement
from orchestrator.experiment.cells import expand
from orchestrator.experiment.experiment import load_experiment
from orchestrator.records.record import Status
from orchestrator.records.store import RecordStore
from orchestrator.report import render
from tests.helpers.paths import ROOT

FOLDERS = sorted(path.parent for path in (ROOT / "docs" / "results").glob("*/records.jsonl"))
NETWORKS = ROOT / "docs" / "results" / "networks"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_report_has_every_cell_of_its_example_once(folder: Path) -> None:
    records = RecordStore(folder).latest().values()
    assert records
    assert {record.status for record in records} == {Status.OK}
    assert len({record.id for record in records}) == len(records)
    asked = {measurement(cell) for cell in expand(load_experiment(ROOT / "examples" / f"{folder.name}.yaml"))}
    assert {measurement(record.cell) for record in records} <= asked


def test_older_measurements_are_shown_as_stock() -> None:
    text = (NETWORKS / "records.jsonl").read_text()
    assert '"name":"crypten"' in text
    assert 'randomness":' not in text
    records = RecordStore(NETWORKS).latest()  # reads none whose id is not that of its cell
    assert {str(record.cell.engine) for record in records.values()} == {"fss", "crypten-stock"}
    assert {record.id for record in records.values()} == {json.loads(line)["id"] for line in text.splitlines()}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
@pytest.mark.slow
def test_its_report_equals_the_one_rendered_from_its_records(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "records.jsonl", tmp_path)
    _, markdown = render(tmp_path)
    again = f"render it again: mpcache-bench report docs/results/{folder.name}"
    assert markdown.read_text() == (folder / "report.md").read_text(), again
