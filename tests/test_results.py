"""Numbers in README.md and docs/results are those of the committed records, and of the program's exact predictions."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.results.pages import NOT_MEASURED, PAGES, TABLES, filled, tables_of
from benchmarks.results.sources import RESULTS, RUNS, records
from orchestrator.experiment.cells import expand
from orchestrator.experiment.experiment import load_experiment
from orchestrator.quality.results import ResultStore
from orchestrator.records.store import RecordStore
from tests.helpers.paths import ROOT
from tests.helpers.samples import record

PREDICTED = ("costs", "savings", "crossings", "quality-2048")
QUOTED = [(page, name) for page in PAGES for name in tables_of(page.read_text())]


@pytest.mark.parametrize(
    ("page", "name"),
    [
        pytest.param(page, name, id=f"{page.relative_to(ROOT)}-{name}", marks=[pytest.mark.slow] * (name in PREDICTED))
        for page, name in QUOTED
    ],
)
def test_a_table_is_that_of_the_records(page: Path, name: str) -> None:
    table = tables_of(page.read_text())[name]
    assert table == filled(table), "make results writes it again"


def test_every_table_is_quoted_and_the_check_can_fail() -> None:
    assert {name for _, name in QUOTED} == set(TABLES)
    table = tables_of(PAGES[0].read_text())["speedup"]
    assert filled(re.sub(r"\d s", "99 s", table)) == table


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty folder in place of docs/results."""
    for module in ("sources", "reliability"):
        monkeypatch.setattr(f"benchmarks.results.{module}.RESULTS", tmp_path)
    records.cache_clear()
    yield tmp_path
    records.cache_clear()


@pytest.mark.usefixtures("results")
def test_a_run_without_records_says_so() -> None:
    page = "<!-- table: machine-gpu -->\n<!-- end of table -->\n<!-- table: gpu -->\n<!-- end of table -->\n"
    assert filled(page).count(NOT_MEASURED) == 1


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("draft", {"drafts": 4}),
        ("paper_spu", {"spu": 20, "spu-savings": 10}),
        ("paper_layer", {"layer": 18, "layer-savings": 9}),
        ("gpu", {"gpu": 9}),
    ],
)
def test_a_run_that_is_added_has_its_tables(name: str, tables: dict[str, int], results: Path) -> None:
    with RecordStore(results / name) as store:
        for cell in expand(load_experiment(ROOT / "examples" / f"{name}.yaml")):
            store.append(record(cell))
    for table, lines in tables.items():
        assert len(TABLES[table]().splitlines()) == 2 + lines
    assert f"[Report]({name}/report.md)" in TABLES[f"machine-{name}"]()


def test_the_summary_of_a_soak_becomes_a_table(results: Path) -> None:
    (results / "soak").mkdir()
    counts = {"rounds": {"begun": 2, "complete": 1}, "records": {"finished": 9, "lost": 0}}
    rest = {"seconds": 7200, "processes": 60, "network_namespaces": 3, "leftovers": [], "violations": ["round-000: x"]}
    (results / "soak" / "summary.json").write_text(json.dumps(counts | rest))
    table = TABLES["soak"]()
    assert "| records | 9 finished, 0 lost |" in table
    assert "| violations | 1 |" in table


def test_every_committed_run_has_a_page() -> None:
    assert {path.parent.name for path in RESULTS.glob("*/records.jsonl")} <= set(RUNS)


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in RESULTS.glob("*/records.jsonl")))
def test_greedy_tokens_are_those_of_the_plain_model_in_every_cell(folder: str) -> None:
    assert all(record.check is not None and record.check.tokens_match for record in records(folder))


@pytest.mark.parametrize(("folder", "samples"), [("2048", 100), ("text/2048", 100), ("4096", 10)])
def test_every_policy_has_all_samples_of_a_study(folder: str, samples: int) -> None:
    found: dict[tuple[str, str, str], list[int]] = {}
    for result in ResultStore(RESULTS / "quality" / folder).read():
        found.setdefault((result.name, result.task, result.question), []).append(result.sample)
    assert {tuple(sorted(each)) for each in found.values()} == {tuple(range(samples))}
