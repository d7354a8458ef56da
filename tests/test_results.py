"""Numbers in README.md and docs/results are those of the committed records, and of the program's exact predictions."""

import re
from pathlib import Path

import pytest

from benchmarks.results import PAGES, RESULTS, TABLES, filled, records, tables_of
from orchestrator.quality.results import ResultStore
from tests.helpers.paths import ROOT

PREDICTED = ("costs", "savings")
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
    assert table == filled(table), "run python -m benchmarks.results"


def test_every_table_is_quoted_and_the_check_can_fail() -> None:
    assert {name for _, name in QUOTED} == set(TABLES)
    table = tables_of(PAGES[0].read_text())["speedup"]
    assert filled(re.sub(r"\d s", "99 s", table)) == table


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in RESULTS.glob("*/records.jsonl")))
def test_greedy_tokens_are_those_of_the_plain_model_in_every_cell(folder: str) -> None:
    assert all(record.check is not None and record.check.tokens_match for record in records(folder))


@pytest.mark.parametrize("length", [2048, 4096])
def test_a_share_of_needles_is_of_ten_samples(length: int) -> None:
    found: dict[tuple[str, str, str], list[int]] = {}
    for result in ResultStore(RESULTS / "quality" / f"{length}").read():
        found.setdefault((result.name, result.task, result.question), []).append(result.sample)
    assert {tuple(sorted(samples)) for samples in found.values()} == {tuple(range(10))}
