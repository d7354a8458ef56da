"""Reads files of JSON lines, such as LongEval's, and texts."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.quality.answering import Sample
from orchestrator.quality.metrics import first_number
from parties.errors import PromptError
from parties.text_file import Unreadable, read_text, shown


def longeval(path: Path) -> Iterator[Sample]:
    """The samples of a LongEval file of line retrieval (JSON lines).

    LongEval lets a chat model answer in 100 tokens and scores the last number. Here the prompt contains the beginning
    of the answer, so that a base model can complete it, and the first number is scored.

    Raises:
        PromptError: The file cannot be read or is not LongEval's.
    """
    for number, row in rows(path, ("prompt", "expected_number", "random_idx")):
        context, mark, rest = row["prompt"].partition("Now the record is over.")
        if not mark:
            raise PromptError(f"file: {path}, line {number}: the record has no end; give LongEval's own file")
        name = row["random_idx"][0] if isinstance(row["random_idx"], list) else row["random_idx"]
        question = f"{mark}{rest}\nThe <REGISTER_CONTENT> in line {name} is <"
        yield Sample(context, question, (str(row["expected_number"]),), first_number, 8)


def text_of(path: Path) -> str:
    """A text: the content of a UTF-8 file, or the concatenated contexts of a LongBench file.

    Raises:
        PromptError: The file cannot be read.
    """
    if path.suffix == ".jsonl":
        contexts = (row["context"] for _, row in rows(path, ("context",)))
        return re.sub(r"\n{3,}", "\n\n", "\n\n".join(contexts))
    return _read(path)


def rows(path: Path, keys: tuple[str, ...]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The objects of a file of JSON lines, each with its line number, from 1; blank lines are skipped.

    Args:
        path: The file, UTF-8.
        keys: Keys that every object must have.

    Raises:
        PromptError: The file cannot be read, or a line is not an object with these keys.
    """
    # Only \n ends a line: JSON strings may hold U+2028 and other characters at which str.splitlines splits.
    for number, line in enumerate(_read(path).split("\n"), 1):
        if not line.strip():
            continue
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
