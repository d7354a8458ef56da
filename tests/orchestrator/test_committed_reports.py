"""The reports under docs/reports/: what their records give, and nothing that was not asked for."""

import json
import shutil
from pathlib import Path

from orchestrator.cells import Cell, expand
from orchestrator.experiment import load_experiment
from orchestrator.record import Status
from orchestrator.report import render
from orchestrator.store import RecordStore

ROOT = Path(__file__).parents[2]
NETWORKS = ROOT / "docs" / "reports" / "networks"


def measurement(cell: Cell) -> tuple[object, ...]:
    return (cell.engine.name, str(cell.policy), cell.seq_len, cell.network.name, cell.new_tokens, cell.repeat)


def test_the_sweep_over_networks_has_cells_of_its_example_each_once_and_whole() -> None:
    records = RecordStore(NETWORKS).latest().values()
    assert {record.status for record in records} == {Status.OK}
    measured = [measurement(record.cell) for record in records]
    assert len(measured) == len(set(measured))
    assert set(measured) <= {measurement(cell) for cell in expand(load_experiment(ROOT / "examples" / "networks.yaml"))}


def test_what_was_measured_before_there_was_a_choice_is_shown_as_stock() -> None:
    text = (NETWORKS / "records.jsonl").read_text()
    assert '"name":"crypten"' in text
    assert 'randomness":' not in text
    records = RecordStore(NETWORKS).latest()  # reads none whose id is not that of its cell
    assert {str(record.cell.engine) for record in records.values()} == {"fss", "crypten-stock"}
    assert {record.id for record in records.values()} == {json.loads(line)["id"] for line in text.splitlines()}


def test_its_report_is_what_its_records_give(tmp_path: Path) -> None:
    shutil.copy(NETWORKS / "records.jsonl", tmp_path)
    _, markdown = render(tmp_path)
    again = "render it again: mpcache-bench report docs/reports/networks"
    assert markdown.read_text() == (NETWORKS / "report.md").read_text(), again
