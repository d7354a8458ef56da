"""LongBench's and LongEval's files, and texts, by path."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from parties.errors import PromptError
from parties.quality.answering import Sample
from parties.text_file import Unreadable, read_text, shown

_LONGBENCH = {
    "narrativeqa": ("f1", 128), "qasper": ("f1", 128), "multifieldqa_en": ("f1", 64), "hotpotqa": ("f1", 32),
    "2wikimqa": ("f1", 32), "musique": ("f1", 32), "triviaqa": ("f1", 32), "gov_report": ("rouge_l", 512),
    "qmsum": ("rouge_l", 512), "multi_news": ("rouge_l", 512), "samsum": ("rouge_l", 128),
    "lcc": ("edit_similarity", 64), "repobench-p": ("edit_similarity", 64),
}  # fmt: skip
"""Metric and length of an answer for each of LongBench's English data sets that these metrics score."""


_SUMMARISE = "\n\nWrite a one-page summary of all of the above.\n\nSummary:"


def longbench(path: Path) -> Iterator[Sample]:
    """The samples of one of LongBench's files (arXiv 2308.14508), JSON lines.

    Raises:
        PromptError: the file cannot be read, is not LongBench's, or its data set has a metric that we lack.
    """
    for number, row in _rows(path, ("input", "context", "answers", "dataset")):
        if row["dataset"] not in _LONGBENCH:
            raise PromptError(
                f"file: {path}, line {number}: no metric for data set {row['dataset']!r}; there are those of "
                f"{', '.join(_LONGBENCH)}"
            )
        metric, length = _LONGBENCH[row["dataset"]]
        if row["input"]:
            question = f"\n\nQuestion: {row['input']}\nAnswer:"
        else:
            question = "\n" if metric == "edit_similarity" else _SUMMARISE
        yield Sample(row["context"], question, tuple(row["answers"]), metric, length)


def longeval(path: Path) -> Iterator[Sample]:
    """The samples of one of LongEval's files of line retrieval, JSON lines.

    Raises:
        PromptError: the file cannot be read or is not LongEval's.
    """
    for number, row in _rows(path, ("prompt", "expected_number", "random_idx")):
        context, mark, asked = row["prompt"].partition("Now the record is over.")
        if not mark:
            raise PromptError(f"file: {path}, line {number}: the record has no end; give LongEval's own file")
        name = row["random_idx"][0] if isinstance(row["random_idx"], list) else row["random_idx"]
        question = f"{mark}{asked}\nThe <REGISTER_CONTENT> in line {name} is <"
        yield Sample(context, question, (str(row["expected_number"]),), "first_number", 8)


def text_of(path: Path) -> str:
    """A text: a UTF-8 file, or the contexts of a LongBench file one after the other.

    Raises:
        PromptError: the file cannot be read.
    """
    if path.suffix == ".jsonl":
        rows = (row["context"] for _, row in _rows(path, ("context",)))
        return re.sub(r"\n{3,}", "\n\n", "\n\n".join(rows))
    return _read(path)


def _rows(path: Path, keys: tuple[str, ...]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(_read(path).splitlines(), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise PromptError(
                f"file: {path}, line {number}: not JSON ({error.msg}); give the file as published"
            ) from None
        missing = [key for key in keys if not isinstance(row, dict) or key not in row]
        if missing:
            raise PromptError(f"file: {path}, line {number}: no {missing[0]!r}; give the file as published")
        yield number, row


def _read(path: Path) -> str:
    try:
        return read_text(path)
    except Unreadable as error:
        raise PromptError(f"file: cannot read {shown(path)}: {error}; it must be a UTF-8 file") from None
