# ruff: noqa: RUF001 - Chinese has commas of its own
"""LongBench's sets are prompted and scored as published."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.quality import chinese
from orchestrator.quality.answering import Sample
from orchestrator.quality.longbench import forms, longbench
from parties.errors import PromptError

PUBLISHED = json.loads((Path(__file__).parent / "data" / "longbench_prompts.json").read_text(encoding="utf-8"))
"""Each set's published prompt for the context "The context." and the input "The input?"."""
LENGTHS = {
    "narrativeqa": 128, "qasper": 128, "multifieldqa_en": 64, "multifieldqa_zh": 64, "hotpotqa": 32, "2wikimqa": 32,
    "musique": 32, "dureader": 128, "gov_report": 512, "qmsum": 512, "multi_news": 512, "vcsum": 512, "trec": 64,
    "triviaqa": 32, "samsum": 128, "lsht": 64, "passage_count": 32, "passage_retrieval_en": 32,
    "passage_retrieval_zh": 32, "lcc": 64, "repobench-p": 64,
}  # fmt: skip
SCORES = {  # an answer and the right one, for which the metric of any other set gives another score
    "qa_f1_score": ("The cat sat.", "a cat sat down", 0.8),
    "qa_f1_zh_score": ("甲乙，", "甲丙", 0.5),
    "rouge_score": ("The cat. sat", "cat sat", 0.8),
    "rouge_zh_score": ("甲乙，", "甲丙", 0.4),
    "classification_score": ("Food and animal", "Food", 0.5),
    "retrieval_score": ("Paragraph 3, not 4", "Paragraph 3", 0.5),
    "retrieval_zh_score": ("段落3，不是4", "段落3", 0.5),
    "count_score": ("3 or 4", "3", 0.5),
    "code_sim_score": ("# so\nab", "ac", 0.5),
}


def row(name: str, **changes: object) -> dict[str, Any]:
    found = {"input": "The input?", "context": "The context.", "answers": ["x"], "dataset": name}
    return found | {"all_classes": ["Food", "animal"]} | changes


def write(folder: Path, *rows: object, end: str = "\n") -> Path:
    path = folder / "set.jsonl"
    path.write_bytes("".join(json.dumps(row, ensure_ascii=False) + end for row in rows).encode())
    return path


@pytest.fixture
def by_character(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chinese text is cut into characters, as jieba cuts these."""
    monkeypatch.setattr(chinese, "available", lambda: True)
    monkeypatch.setattr(chinese, "_cutter", lambda: list)


def the_sample(folder: Path, name: str, **changes: object) -> Sample:
    (sample,) = longbench(write(folder, row(name, **changes)))
    return sample


@pytest.mark.usefixtures("by_character")
@pytest.mark.parametrize("suffix", ["", "_e"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_prompt_is_the_published_one(tmp_path: Path, name: str, suffix: str) -> None:
    sample = the_sample(tmp_path, name + suffix)
    assert sample.context + sample.question == PUBLISHED[name]
    assert sample.context.endswith("The context.")
    assert sample.new_tokens == LENGTHS[name]


def test_every_set_is_known() -> None:
    assert set(forms()) == set(PUBLISHED) == set(LENGTHS)


@pytest.mark.usefixtures("by_character")
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_score_is_the_published_one(tmp_path: Path, name: str) -> None:
    answer, right, score = SCORES[forms()[name]["metric"]]
    sample = the_sample(tmp_path, name, answers=[right])
    assert sample.metric(answer, ("Paragraph 9, 段落9", *sample.answers)) == pytest.approx(score, abs=1e-6)


@pytest.mark.usefixtures("by_character")
@pytest.mark.parametrize("name", PUBLISHED)
def test_of_few_shot_sets_only_the_first_line_counts(tmp_path: Path, name: str) -> None:
    answer, right, _ = SCORES[forms()[name]["metric"]]
    sample = the_sample(tmp_path, name, answers=[right])
    same = sample.metric(f"\n\n{answer}\n7 {answer} animal 乙", sample.answers) == sample.metric(answer, sample.answers)
    assert same == (name in ("trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p"))  # code: by its own metric


@pytest.mark.usefixtures("by_character")
def test_only_samsum_stops_at_a_line(tmp_path: Path) -> None:
    assert {name for name in PUBLISHED if the_sample(tmp_path, name).stop} == {"samsum"}


def test_braces_of_a_document_stay(tmp_path: Path) -> None:
    sample = the_sample(tmp_path, "lcc", context="x = f'{input}{context}'\n", input="")
    assert sample.context + sample.question == (
        "Please complete the code given below. \nx = f'{input}{context}'\nNext line of code:\n"
    )


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "\n \r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_a_line_ends_at_its_newline_alone(tmp_path: Path, start: str, end: str) -> None:
    strange = "a\u2028b\u2029c\x85d\x0be"
    path = write(tmp_path, row("qasper", context=strange), row("qasper", context="2"), end=end)
    path.write_bytes(start.encode() + path.read_bytes())
    first, second = longbench(path)
    assert f"Article: {strange}" in first.context
    assert second.context.endswith("Article: 2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "nq"}, "line 1: the prompt of data set 'nq' is not known; allowed: narrat"),
        ({"dataset": "trec", "all_classes": None}, "line 1: 'all_classes' is not a list of texts"),
        ({"answers": []}, "line 1: 'answers' is not a list of texts"),
        ({"answers": [7]}, "line 1: 'answers' is not a list of texts"),
        ({"context": None}, "line 1: 'context' is not a text"),
    ],
)
def test_a_row_of_another_format_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        the_sample(tmp_path, **{"name": "qasper"} | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["multifieldqa_zh", "dureader", "vcsum"])
def test_chinese_is_scored_with_jieba_or_not_at_all(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chinese, "available", lambda: False)
    with pytest.raises(PromptError, match=f"{name} is scored by .*, which needs jieba: pip install jieba"):
        the_sample(tmp_path, name)


def test_jieba_cuts_words() -> None:
    pytest.importorskip("jieba", reason="jieba is not installed: the extra longbench")
    assert chinese.bare_words("我们讨论了，AI 模型。") == ["我们", "讨论", "了", "ai", "模型"]
