# ruff: noqa: RUF001 - Chinese has commas of its own
"""Scores as their benchmarks define them, by hand."""

from collections.abc import Callable
from functools import partial

import pytest

from orchestrator.quality import chinese
from orchestrator.quality.metrics import (
    all_found,
    classification,
    count,
    edit_similarity,
    f1,
    f1_zh,
    first_number,
    retrieval,
    retrieval_zh,
    rouge_l,
    rouge_l_zh,
)

trec = partial(classification, classes=("Food", "Other food", "Animal", "Other animal"))


@pytest.mark.parametrize(
    ("metric", "answer", "answers", "score"),
    [
        (all_found, " 123 and 456", ("123", "456", "789", "000"), 0.5),
        (first_number, "it is 2416>, not 7", ("2416",), 1.0),
        (first_number, "7, not 2416", ("2416",), 0.0),
        (f1, "The cat sat.", ("a cat sat down",), 0.8),
        (f1, "none", ("of", "none"), 1.0),
        (f1, "", ("none",), 0.0),
        (f1, "the", ("a",), 0.0),  # nothing is left of either
        (rouge_l, "a b c d", ("a c d e",), 0.75),
        (rouge_l, "c d. a b", ("a b c d",), 1.0),  # two sentences find what one order could not
        (rouge_l, "a a a b", ("a b",), 1.0),  # a word counts once
        (rouge_l, "x b y a", ("a b",), 1 / 3),  # of two longest subsequences one counts
        (rouge_l, "", ("a",), 0.0),
        (rouge_l, "...", ("a",), 0.0),
        (rouge_l, "The", ("the",), 0.0),
        (edit_similarity, "# a comment\nreturn x", ("return x",), 1.0),
        (edit_similarity, "\n\nreturn x\nmore", ("return x",), 1.0),
        (edit_similarity, "", ("return x",), 0.0),
        (edit_similarity, "", ("",), 1.0),
        (edit_similarity, "abc", ("abd",), 0.67),  # in whole per cent
        (edit_similarity, "ab x", ("x ab",), 0.5),
        (trec, "Food", ("Food",), 1.0),
        (trec, "Food or Animal", ("Food",), 0.5),
        (trec, "food", ("Food",), 0.0),
        (trec, "", ("Food",), 0.0),
        (partial(classification, classes=("food", "other food")), "other food", ("other food",), 1.0),
        (partial(classification, classes=("food", "od", "other food")), "other food", ("other food",), 0.5),
        (count, "5 of 15 or 5", ("5",), 2 / 3),
        (count, "five", ("5",), 0.0),
        (count, "05", ("5",), 0.0),
        (retrieval, "Paragraph 3", ("Paragraph 3",), 1.0),
        (retrieval, "3 or 33", ("Paragraph 3",), 0.5),
        (retrieval, "", ("Paragraph 3",), 0.0),
        (retrieval_zh, "段落3，段落4", ("段落3",), 0.5),
    ],
)
def test_scores(
    metric: Callable[[str, tuple[str, ...]], float], answer: str, answers: tuple[str, ...], score: float
) -> None:
    assert metric(answer, answers) == pytest.approx(score, abs=1e-7)


@pytest.mark.parametrize(
    ("metric", "answer", "answers", "score"),
    [
        (f1_zh, "甲，乙。", ("《甲》",), 0.5),  # punctuation is taken off, except for the opening mark of a title
        (f1_zh, "Ａ。", ("ａ",), 1.0),
        (f1_zh, "，。", ("甲",), 0.0),
        (f1_zh, "", ("甲",), 0.0),
        (rouge_l_zh, "甲乙丙", ("甲丙",), 0.8),
        (rouge_l_zh, "甲，乙", ("甲乙",), 0.8),
        (rouge_l_zh, "", ("甲",), 0.0),
    ],
)
def test_chinese_scores(
    monkeypatch: pytest.MonkeyPatch,
    metric: Callable[[str, tuple[str, ...]], float],
    answer: str,
    answers: tuple[str, ...],
    score: float,
) -> None:
    monkeypatch.setattr(chinese, "_cutter", lambda: list)  # a character a word
    assert metric(answer, answers) == pytest.approx(score, abs=1e-7)
