"""Problems of an experiment file, reported all at once, each with its path, value, allowed values and a fix."""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from orchestrator.experiment.allowed import allowed

_LONGEST_VALUE = 80
_LONGEST_KEY = 60
_ALIKE = 0.76  # of difflib's ratio: `cryptn` is `crypten`, but `rtt_ms` is not `jitter_ms`
_ALIKE_SHORT = 0.6  # one letter of three


class NotShown:
    """Replaces a value in a message that may be a secret, such as a prompt in the wrong place."""

    def __init__(self, reason: str = "a value that is not shown, since it may be the prompt") -> None:
        self._reason = reason

    def __repr__(self) -> str:
        """The text that the message shows instead."""
        return self._reason


_MISSING = NotShown("missing")


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one value.

    Attributes:
        path: Place in the file, such as `policies[1].select`; empty for the file as a whole.
        value: The value at that place, or what is shown instead of it.
        allowed: The allowed values.
        fix: The change to make.
        reason: Why the value cannot be used, if the allowed values do not explain it.
    """

    path: str
    value: object
    allowed: str
    fix: str
    reason: str = ""

    def __str__(self) -> str:
        shown = repr(self.value) if self.path else str(self.value)
        if len(shown) > _LONGEST_VALUE and self.path:
            shown = shown[:_LONGEST_VALUE] + "..."
        refused = f"{shown} cannot be used: {self.reason}" if self.reason else shown
        return f"{self.path or 'the file'}: {refused}; allowed: {self.allowed}; fix: {self.fix}"


class ConfigError(Exception):
    """An invalid experiment; `problems` holds all of its problems."""

    status: ClassVar[str] = "config_error"

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        super().__init__(source, problems)
        self.source = source
        self.problems = tuple(problems)

    def __str__(self) -> str:
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        return "\n".join([f"{self.source}: {count}", *(f"  {problem}" for problem in self.problems)])


class Rejected(ValueError):  # noqa: N818 - pydantic requires a ValueError; users see ConfigError
    """Raised by a validator: problems with paths below the value that it looks at."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


def closest(name: object, known: Iterable[str]) -> str | None:
    """The known name that another one most likely means, or None, since a wrong suggestion is worse than none.

    It has the same letters, regardless of case, order and plural; or it is the only one that has all words of that name
    and more; or it differs in a letter or two.
    """
    given, names = str(name), list(known)
    same = [one for one in names if sorted(_letters(one)) == sorted(_letters(given))]
    longer = [one for one in names if _words(given) < _words(one)]
    if same or len(longer) == 1:
        return (same or longer)[0]
    alike = _ALIKE if len(given) > 3 else _ALIKE_SHORT
    return next(iter(difflib.get_close_matches(given.lower(), names, n=1, cutoff=alike)), None)


def _letters(name: str) -> str:
    """Its letters without case, separators and plural."""
    return re.sub(r"ies$|y$|s$", "", re.sub(r"[-_ ]", "", name.lower()))


def _words(name: str) -> set[str]:
    return set(re.split(r"[-_ ]", name.lower()))


def unknown(path: str, name: object, known: Sequence[str], what: str) -> Problem:
    """The problem of an unknown name."""
    match = closest(name, known)
    plural = "axes" if what == "axis" else f"{what}s"
    fix = f"write {match}" if match else f"use one of the {plural} listed, or take it out"
    value = NotShown(f"not a {what}") if path.rpartition(".")[2] == name else name  # not twice
    return Problem(path, value, f"{plural} {', '.join(known)}", fix)


def join(path: str, below: str) -> str:
    """A path extended by one that starts below it."""
    return path + below if not path or not below or below.startswith("[") else f"{path}.{below}"


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Every problem that pydantic found in the input of a model."""
    details = [detail for detail in error.errors() if not _follows_from_others(detail)]
    problems = [problem for detail in details for problem in _problems(detail, model)]
    misspelt = {problem.fix for problem in problems}
    return [problem for problem in problems if problem.value is not _MISSING or f"write {problem.path}" not in misspelt]


def _follows_from_others(detail: ErrorDetails) -> bool:
    """Whether a list is called too short only because its items were refused."""
    return detail["type"] == "too_short" and bool(detail["input"])


def _problems(detail: ErrorDetails, model: type[BaseModel]) -> list[Problem]:
    path, secret = "", False
    owner, field = _field_at(model, detail["loc"])
    for count, step in enumerate(detail["loc"], 1):
        if step != "[key]":  # pydantic's word for an error of the key itself
            path = join(path, f"[{step}]" if isinstance(step, int) else _key(step, owner) if secret else step)
        secret = _is_secret(model, detail["loc"][:count])
    raised = detail.get("ctx", {}).get("error")
    if isinstance(raised, Rejected):
        return [replace(problem, path=join(path, problem.path)) for problem in raised.problems]
    if detail["type"] == "extra_forbidden":
        name = path.rpartition(".")[2] if secret else detail["loc"][-1]
        return [unknown(_public(path), _public(name), list(owner.model_fields), "key")]
    if detail["loc"][-1] == "[key]" and detail["type"] == "literal_error":
        return [unknown(path, detail["input"], re.findall(r"'(\w+)'", detail["ctx"]["expected"]), "key")]
    value = _MISSING if detail["type"] == "missing" else NotShown() if secret else detail["input"]
    key = next((step for step in reversed(detail["loc"]) if step in owner.model_fields), "")
    example = (
        f"write for example `{key}: {field.examples[0]}`" if field and field.examples else "see docs/experiments.md"
    )
    return [Problem(path, value, _allowed(detail, owner), example)]


def _allowed(detail: ErrorDetails, owner: type[BaseModel]) -> str:
    """The type and bounds of the field that pydantic refused, or what its own check of the value says."""
    loc = detail["loc"]
    start = next((i for i in reversed(range(len(loc))) if loc[i] in owner.model_fields), None)
    if start is None or detail["type"] in {"value_error", "assertion_error"}:
        return detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if detail["type"] == "string_pattern_mismatch":
        first = (owner.model_fields[str(loc[start])].description or "").partition(". ")[0]
        return first[:1].lower() + first[1:]
    return allowed(owner, loc[start:])


def _public(key: object) -> str:
    """A key for a message; one of several words is hidden, since it may be a line of a prompt."""
    return "…" if len(str(key)) > _LONGEST_KEY or " " in str(key) else str(key)


def _is_secret(model: type[BaseModel], loc: tuple[int | str, ...]) -> bool:
    """Whether an error is at or below a field whose value is never shown: one with `repr=False`."""
    fields = (_field_at(model, loc[: count + 1])[1] for count in range(len(loc)))
    return any(field is not None and not field.repr for field in fields)


def _key(step: str, owner: type[BaseModel]) -> str:
    """A key below a secret field; hidden unless it is or resembles a known key, since it may be part of the secret."""
    known = list(owner.model_fields)
    return step if step in known or closest(step, known) else "..."


def _field_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[type[BaseModel], FieldInfo | None]:
    """The model at the place of an error, and its field there."""
    field: FieldInfo | None = None
    for step in loc:
        if isinstance(step, str) and step in model.model_fields:
            field = model.model_fields[step]
            if (inner := _model_in(field.annotation)) is not None and step != loc[-1]:
                model = inner
    return model, field


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)
