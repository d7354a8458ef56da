"""The folder of a study: `study.json`, and `results.jsonl`, a line per policy and sample."""

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.experiment.choices import ChosenPolicy
from orchestrator.quality.study import Study
from orchestrator.records.jsonl import JsonLines, StoreError

_RESULTS, _STUDY = "results.jsonl", "study.json"
_SAME = ("model", "seed", "continuation")
"""Keys that may not change between calls, since results of both are averaged."""

FORM = 2
"""Incremented when prompts, answers or scores change. 2: LongBench's published prompts; end-of-text ends an answer."""


class Point(BaseModel):
    """One policy or press on one sample, with all values resolved.

    Attributes:
        task: Name of the task.
        length: Tokens of the context.
        question: `visible` or `hidden`; `none` for a task without questions.
        sample: Number of the sample.
        policy: The policy; None for a press.
        press: The call that builds the press; None for a policy.
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
        """The policy or press."""
        return str(self.policy or self.press)

    @property
    def id(self) -> str:
        """A hash that is the same for the same point in every run."""
        return hashlib.sha256(self.model_dump_json(exclude_none=True).encode()).hexdigest()[:16]


class Result(Point):
    """A point, its values by the name of the measure, and the `FORM` in which they were computed."""

    values: dict[str, float]
    form: int = 1

    @property
    def point(self) -> Point:
        """The point that was evaluated."""
        return Point(**{name: getattr(self, name) for name in Point.model_fields})


class ResultStore(JsonLines[Result]):
    """Results of one study.

    Args:
        folder: Folder of the study; the first write creates it.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, _RESULTS, Result)

    def begin(self, study: Study) -> None:
        """Writes the study next to its results; the lock must be held.

        Raises:
            StoreError: The folder cannot be written, or holds results that cannot be averaged with new ones.
        """
        path = self.folder / _STUDY
        try:
            if path.exists():
                self._refuse_other(Study.model_validate_json(path.read_text(encoding="utf-8")), study)
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}; choose another folder") from None
        except (UnicodeDecodeError, ValidationError):
            raise StoreError(f"{path} is damaged; choose another folder") from None
        self._refuse_other_form()
        self.write(_STUDY, study.model_dump_json(indent=2))

    def line_of(self, item: Result) -> str:
        """The JSON of a result, without `policy` or `press`, whichever is None."""
        return item.model_dump_json(exclude_none=True)

    def _refuse_other(self, before: Study, now: Study) -> None:
        files = {str(task): task.file for task in before.tasks}
        for key in _SAME:
            if getattr(before, key) != getattr(now, key):
                raise StoreError(
                    f"{self.folder} holds results with {key}: {json.dumps(getattr(before, key))}, the file has "
                    f"{json.dumps(getattr(now, key))}; choose another folder"
                )
        for task in now.tasks:
            if files.get(str(task), task.file) != task.file:
                raise StoreError(f"{self.folder} holds results of {task} on another file; choose another folder")

    def _refuse_other_form(self) -> None:
        if any(result.form != FORM for result in self.read()):
            raise StoreError(
                f"{self.folder} holds results of another version of this program, which asked or scored otherwise; "
                "choose another folder"
            )
