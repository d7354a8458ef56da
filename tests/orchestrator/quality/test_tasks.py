"""Generated tasks: of the requested length, answerable, reproducible; benchmarks' files are read."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.quality.answering import split_sample
from orchestrator.quality.files import longeval, text_of
from orchestrator.quality.longbench import longbench
from orchestrator.quality.tasks import TASKS
from parties.errors import PromptError
from parties.models import load_tokenizer

LIMIT = 3000


@pytest.mark.parametrize("name", TASKS)
@given(seed=st.integers(0, 10**6), limit=st.integers(900, LIMIT))
def test_a_context_fills_the_length_and_holds_the_answers(name: str, seed: int, limit: int) -> None:
    sample = TASKS[name](random.Random(seed), lambda text: len(text) <= limit)
    assert limit - 200 <= len(sample.context) <= limit
    assert all(answer in sample.context for answer in sample.answers)
    assert sample.metric(" ".join(sample.answers), sample.answers) == 1
    assert sample.metric("nothing of it", sample.answers) == 0


@pytest.mark.parametrize("name", TASKS)
def test_the_same_seed_makes_the_same_task(name: str) -> None:
    one, other, third = (TASKS[name](random.Random(seed), lambda text: len(text) < LIMIT) for seed in (1, 1, 2))
    assert one == other != third


@pytest.mark.parametrize("name", TASKS)
def test_a_length_that_cannot_hold_the_task_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="ask for a longer one"):
        TASKS[name](random.Random(0), lambda text: len(text) < 10)


def test_a_hidden_question_is_not_compressed() -> None:
    tokenizer = load_tokenizer("random:llama?layers=1&hidden=16&heads=2&kv_heads=1&intermediate=16&vocab=256")
    sample = TASKS["needle_single"](random.Random(0), lambda text: len(text) < LIMIT)
    visible, hidden = (split_sample(tokenizer, sample, when) for when in ("visible", "hidden"))
    assert visible.before + visible.after == hidden.before + hidden.after
    assert len(visible.after) == 1
    assert len(hidden.before) == len(tokenizer.encode(sample.context))


def lines(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_files_of_the_benchmarks_are_read(tmp_path: Path) -> None:
    record = "line a-b: REGISTER_CONTENT is <7>\n"
    row = {"prompt": record + "Now the record is over. Tell me", "expected_number": 7, "random_idx": ["a-b", 0]}
    (sample,) = longeval(lines(tmp_path / "e.jsonl", row))
    assert sample.context == record
    assert sample.question.endswith("line a-b is <")
    assert sample.metric("7> and so on", sample.answers) == 1
    rows = ({"context": "one\u2028line"}, {"context": "two"})
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n"
    (tmp_path / "t.jsonl").write_text("\ufeff" + text, encoding="utf-8")
    assert text_of(tmp_path / "t.jsonl") == "one\u2028line\n\ntwo"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "line 1: not JSON"),
        ('{"input": "x"}', "line 1: no 'context'"),
    ],
)
def test_a_file_that_is_not_the_benchmarks_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    with pytest.raises(PromptError, match=message):
        list(longbench(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"cannot read .*none\.jsonl: No such file"):
        list(longeval(tmp_path / "none.jsonl"))
