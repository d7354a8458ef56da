"""Numbers in the documents are those of the committed records, and of what the program predicts now."""

import re
from functools import cache
from typing import Any

import pytest

from orchestrator.experiment.cells import expand
from orchestrator.experiment.experiment import Experiment
from orchestrator.experiment.link_time import PhaseCost
from orchestrator.predict.forecast import forecast
from orchestrator.records.record import Record
from orchestrator.records.store import RecordStore
from tests.helpers.paths import ROOT

ATTENTION = ("similarity", "topk", "gather", "scores", "softmax", "attend")


@cache
def records() -> tuple[Record, ...]:
    return tuple(RecordStore(ROOT / "docs" / "reports" / "networks").latest().values())


def measured(engine: str, policy: str, seq_len: int) -> list[Record]:
    asked = (engine, policy, seq_len)
    return [r for r in records() if (r.cell.engine.name, r.cell.policy.name, r.cell.seq_len) == asked]


@cache
def predicted(policy: str, seq_len: int) -> PhaseCost:
    """One token of `fss`, with the parameters of the documents' tables."""
    chosen: Any = {"name": "mpcache", "static_keep": 0.4, "select": 0.2} if policy == "mpcache" else policy
    asked = {
        "name": "quoted",
        "model": "smollm2-135m",
        "prompt": {"random_tokens": True},
        "engines": ["fss"],
        "policies": [chosen],
        "seq_lens": [seq_len],
        "new_tokens": 1,
        "comparison": "dcf",
    }
    (cell,) = expand(Experiment.model_validate(asked))
    return forecast(cell).decode


def rows(page: str, columns: int) -> list[list[str]]:
    """Cells of all table rows of a page with so many columns, without emphasis."""
    lines = [line.strip().strip("|").split("|") for line in page.splitlines() if line.startswith("|")]
    return [[cell.replace("*", "").strip() for cell in line] for line in lines if len(line) == columns]


def megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e8 else f"{size / 1e6:,.0f} MB"


README = [row for row in rows((ROOT / "README.md").read_text(), 7) if re.match(r"(crypten|fss), ", row[0])]


def test_the_readme_has_a_row_for_each_engine_and_cache() -> None:
    assert {(*row[0].split(", "), row[1]) for row in README} == {
        (engine, policy, seq_len)
        for engine in ("crypten", "fss")
        for policy in ("full", "mpcache")
        for seq_len in ("128", "1,024")
    }


def counted(record: Record) -> list[float]:
    """Online bytes each way, those of attention, rounds and offline bytes of a measured token."""
    assert record.totals is not None
    sent = [s.sent_bytes for s in record.stages if s.party == "client" and s.stage in ATTENTION]
    online, offline = record.totals.online, record.totals.offline
    sums = [online.sent_bytes["client"], sum(sent), online.rounds, sum(offline.sent_bytes.values())]
    return [value / record.tokens for value in sums]


def attention(cost: PhaseCost) -> float:
    return sum(stage.sent["client"] for stage in cost.stages if stage.stage in ATTENTION)


def foretold(cost: PhaseCost) -> list[float]:
    """The same of a token of `fss`, which the program predicts exactly."""
    return [cost.sent["client"], attention(cost), cost.rounds, sum(cost.dealt.values())]


@pytest.mark.parametrize("row", README, ids=lambda row: " ".join(row[:2]))
def test_a_row_of_the_readme_is_predicted_or_measured(row: list[str]) -> None:
    engine, policy = row[0].split(", ")
    seq_len = int(row[1].replace(",", ""))
    cells = measured(engine, policy, seq_len)
    sent, attended, rounds, dealt = foretold(predicted(policy, seq_len)) if engine == "fss" else counted(cells[0])
    error = max(record.check.max_abs_logit_error for record in cells if record.check)
    assert row[2:] == [megabytes(sent), megabytes(attended), f"{rounds:,g}", megabytes(dealt), f"{error:.3f}"]


PAPER = [row for row in rows((ROOT / "docs" / "paper.md").read_text(), 5) if re.fullmatch(r"[\d,]+", row[0])]


@pytest.mark.parametrize("row", PAPER, ids=lambda row: row[0])
def test_a_row_of_the_comparison_with_the_paper_is_predicted(row: list[str]) -> None:
    full, mpcache = (predicted(policy, int(row[0].replace(",", ""))) for policy in ("full", "mpcache"))
    online = [2 * cost.sent["client"] for cost in (full, mpcache)]
    attended = [2 * attention(cost) for cost in (full, mpcache)]
    everything = [sum(cost.sent.values()) + sum(cost.dealt.values()) for cost in (full, mpcache)]

    def over(pair: list[float]) -> str:
        return f"{pair[0] / pair[1]:.2f} ({pair[0] / 1e6:.1f} over {pair[1] / 1e6:.1f} MB)"

    assert row[2:] == [over(online), over(attended), f"{everything[0] / everything[1]:.2f}"]
    assert len(PAPER) == 3


def test_the_rounds_that_the_comparison_with_the_paper_quotes_are_predicted() -> None:
    page = (ROOT / "docs" / "paper.md").read_text()
    full, mpcache = (predicted(policy, 1024).rounds for policy in ("full", "mpcache"))
    assert f"| {full:g} over {mpcache:g}: MPCache needs {100 * (mpcache / full - 1):.0f} % *more* |" in page


def test_the_seconds_compared_with_crypten_are_those_of_the_records() -> None:
    seconds = {
        (str(record.cell.engine), record.cell.network.name): record.seconds_per_token or 0.0
        for record in RecordStore(ROOT / "docs" / "reports" / "speedup").latest().values()
    }
    page = (ROOT / "docs" / "reports" / "README.md").read_text()
    table = [row for row in rows(page, 5) if re.match("[lw]an,", row[0])]
    assert [row[0].partition(",")[0] for row in table] == ["lan", "wan"]
    for row in table:
        link = row[0].partition(",")[0]
        found = [seconds.get((engine, link)) for engine in ("crypten", "crypten-stock", "fss")]
        assert row[1:4] == [f"{value:.3g} s" if value else "" for value in found]
        assert row[4] == f"{seconds['crypten', link] / seconds['fss', link]:.1f}"
