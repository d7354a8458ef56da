"""The folder of a study: `study.json`, and `results.jsonl`, a line for each policy and sample."""

import hashlib
import json
import os
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.experiment.choices import ChosenPolicy
from orchestrator.quality.study import Study
from orchestrator.records.store import StoreError

_RESULTS, _STUDY = "results.jsonl", "study.json"
_SAME = ("model", "seed", "continuation")
"""What may not change between calls: results of both would be averaged."""


FORM = 2
"""Raised when prompts, answers or scores change; 2 asks LongBench's sets as published, and an answer ends as a text."""


class Point(BaseModel):
    """One thing to evaluate, resolved.

    Attributes:
        task: Its name.
        length: Tokens of the context.
        question: visible, hidden, or none where nothing is asked.
        sample: Its number.
        policy: The policy; None for a press.
        press: How the press is built.
    """

    model_config = ConfigDict(frozen=True)

    task: str
    length: int
    question: str
    sample: int
    policy: ChosenPolicy | None = None
    press: str | None = None

    @property
    def name(self) -> str:
        """What the cache is compressed by."""
        return str(self.policy or self.press)

    @property
    def id(self) -> str:
        """The same for the same point in any run."""
        return hashlib.sha256(self.model_dump_json(exclude_none=True).encode()).hexdigest()[:16]


class Result(Point):
    """A point and its values, by the name of the measure, and the `FORM` that they were found in."""

    values: dict[str, float]
    form: int = 1

    @property
    def point(self) -> Point:
        """What was evaluated."""
        return Point(**{name: getattr(self, name) for name in Point.model_fields})


class ResultStore:
    """Results of one study, appended a line at a time; a line that a crash left half written is dropped.

    Args:
        folder: Of the study.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, study: Study) -> Self:
        """Makes the folder, or checks that it belongs to the same study.

        Raises:
            StoreError: The folder cannot be written, or holds results that cannot stand beside new ones.
        """
        path = self._folder / _STUDY
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if path.exists():
                self._refuse_other(Study.model_validate_json(path.read_text(encoding="utf-8")), study)
            path.write_text(study.model_dump_json(indent=2), encoding="utf-8")
            if (results := self._folder / _RESULTS).exists():
                results.write_text(_whole_lines(results), encoding="utf-8")
                self._refuse_other_form()
        except OSError as error:
            raise StoreError(f"cannot write to {self._folder}: {error.strerror}; choose another folder") from None
        except ValidationError:
            raise StoreError(f"{path} is damaged; choose another folder") from None
        return self

    def study(self) -> Study:
        """The study as it was last run.

        Raises:
            StoreError: There is none.
        """
        try:
            return Study.model_validate_json((self._folder / _STUDY).read_text(encoding="utf-8"))
        except (OSError, ValidationError):
            raise StoreError(f"{self._folder} holds no study; name the folder of mpcache-bench eval --out") from None

    def read(self) -> list[Result]:
        """All results.

        Raises:
            StoreError: The file cannot be read, or a line is damaged.
        """
        path, found = self._folder / _RESULTS, list[Result]()
        try:
            text = _whole_lines(path) if path.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise StoreError(f"cannot read {path}: {reason}; choose another folder") from None
        for number, line in enumerate(text.split("\n")[:-1], 1):
            try:
                found.append(Result.model_validate_json(line))
            except ValidationError:
                raise StoreError(f"{path}, line {number}: damaged; take the line out, and run again") from None
        return found

    def append(self, result: Result) -> None:
        """Writes a result, on disk when this returns."""
        with (self._folder / _RESULTS).open("a", encoding="utf-8") as file:
            file.write(result.model_dump_json(exclude_none=True) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def write(self, name: str, text: str) -> Path:
        """Puts a file beside the results."""
        path = self._folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def _refuse_other(self, before: Study, now: Study) -> None:
        files = {str(task): task.file for task in before.tasks}
        for key in _SAME:
            if getattr(before, key) != getattr(now, key):
                raise StoreError(
                    f"{self._folder} holds results with {key}: {json.dumps(getattr(before, key))}, the file says "
                    f"{json.dumps(getattr(now, key))}; choose another folder"
                )
        for task in now.tasks:
            if files.get(str(task), task.file) != task.file:
                raise StoreError(f"{self._folder} holds results of {task} on another file; choose another folder")

    def _refuse_other_form(self) -> None:
        if any(result.form != FORM for result in self.read()):
            raise StoreError(
                f"{self._folder} holds results of another version of this program, which asked or scored otherwise; "
                "choose another folder"
            )


def _whole_lines(path: Path) -> str:
    """The file without a last line that a crash left half written."""
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1]
