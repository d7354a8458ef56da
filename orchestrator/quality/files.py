"""Files of JSON lines, LongEval's among them, and texts, by path."""

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
    """The samples of one of LongEval's files of line retrieval, JSON lines.

    LongEval lets a chat model answer in 100 tokens, and takes the last number. Here the answer's beginning is given, so
    that a base model can complete it, and the first number counts.

    Raises:
        PromptError: the file cannot be read or is not LongEval's.
    """
    for number, row in rows(path, ("prompt", "expected_number", "random_idx")):
        context, mark, asked = row["prompt"].partition("Now the record is over.")
        if not mark:
            raise PromptError(f"file: {path}, line {number}: the record has no end; give LongEval's own file")
        name = row["random_idx"][0] if isinstance(row["random_idx"], list) else row["random_idx"]
        question = f"{mark}{asked}\nThe <REGISTER_CONTENT> in line {name} is <"
        yield Sample(context, question, (str(row["expected_number"]),), first_number, 8)


def text_of(path: Path) -> str:
    """A text: a UTF-8 file, or the contexts of a LongBench file one after the other.

    Raises:
        PromptError: the file cannot be read.
    """
    if path.suffix == ".jsonl":
        contexts = (row["context"] for _, row in rows(path, ("context",)))
        return re.sub(r"\n{3,}", "\n\n", "\n\n".join(contexts))
    return _read(path)


def rows(path: Path, keys: tuple[str, ...]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The objects of a file of JSON lines, each with the number of its line, from 1; blank lines are none.

    Args:
        path: the file, UTF-8.
        keys: what every object must have.

    Raises:
        PromptError: the file cannot be read, or a line is not such an object.
    """
    # Only \n ends a line: JSON strings may hold U+2028 and whatever else str.splitlines takes for an end.
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
