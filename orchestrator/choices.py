"""The parts of an experiment that are named: its prompt, engines and policies."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Self, get_type_hints

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from orchestrator.problems import Problem, Rejected, unknown
from parties.engines import ENGINES
from parties.policies import POLICIES, make

_FIX = "correct the value, or take it out for the default"


def folders(info: ValidationInfo) -> list[Path]:
    """Where relative paths start: the experiment file's folder, then the working directory."""
    own = (info.context or {}).get("folder")
    return [Path(own).resolve(), Path.cwd()] if own else [Path.cwd()]


def located(path: str, info: ValidationInfo) -> Path | None:
    """The absolute path of an existing file or folder, or None."""
    places = (folder / Path(path).expanduser() for folder in folders(info))
    return next((place.resolve() for place in places if place.exists()), None)


class Prompt(BaseModel):
    """Where the client finds its prompt: exactly one of the two."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text_file: str | None = Field(
        default=None,
        min_length=1,
        description="A UTF-8 text on the client's host. A relative path starts at the experiment file's folder or, "
        "failing that, at the working directory.",
        examples=["prompts/article.txt"],
    )
    random_tokens: bool = Field(
        default=False, strict=True, description="Tokens drawn from the seed instead of a text.", examples=["true"]
    )

    @field_validator("text_file")
    @classmethod
    def _exists(cls, path: str | None, info: ValidationInfo) -> str | None:
        if path is None or not info.context:  # a record outlives its prompt, and is read on other machines
            return path
        found = located(path, info)
        if found is None or not found.is_file():
            places = " or ".join(map(str, folders(info)))
            raise Rejected(Problem("", path, f"a file that exists, absolute or below {places}", "correct the path"))
        return str(found)

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.text_file is None) == (not self.random_tokens):
            given = "both" if self.random_tokens else "neither"
            fix = "write {text_file: PATH} or {random_tokens: true}"
            raise Rejected(Problem("", given, "exactly one of text_file and random_tokens", fix))
        return self


class EngineChoice(BaseModel):
    """A secure computation, by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description=f"One of {', '.join(ENGINES)}.", examples=["crypten"])

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in ENGINES:
            raise Rejected(unknown("", name, list(ENGINES), "engine"))
        return name


class PolicyChoice(BaseModel):
    """A cache policy by name; its parameters stand beside the name, all of them filled in."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The policy's parameters, without its name."""
        return dict(self.model_extra or {})

    def __str__(self) -> str:
        """The name, with those parameters that are not the defaults."""
        defaults = asdict(make(self.name))
        changed = [f"{key}={value}" for key, value in self.parameters.items() if value != defaults.get(key)]
        return f"{self.name}({', '.join(changed)})" if changed else self.name

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, given: object) -> object:
        given = named(given)
        if not isinstance(given, dict) or not isinstance(given.get("name"), str):
            raise Rejected(Problem("", given, f"one of {', '.join(POLICIES)}", "write a name, or {name: NAME, ...}"))
        if given["name"] not in POLICIES:
            raise Rejected(unknown("name", given["name"], list(POLICIES), "policy name"))
        return _with_defaults(given["name"], {key: value for key, value in given.items() if key != "name"})


def _with_defaults(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """The policy's name and all parameters; tries again without each bad one, so that all are found."""
    known = [field.name for field in fields(POLICIES[name])]
    problems = [unknown(key, key, known, "parameter") for key in parameters if key not in known]
    hints = get_type_hints(POLICIES[name])
    good: dict[str, Any] = {}
    for key in set(parameters) & set(known):
        try:
            good[key] = TypeAdapter(hints[key]).validate_python(parameters[key], strict=True)
        except ValidationError as error:
            allowed = error.errors()[0]["msg"].removeprefix("Input should be ")
            problems.append(Problem(key, parameters[key], allowed, _FIX))
    while True:
        try:
            policy = make(name, **good)
        except ValueError as error:
            key, _, message = str(error).partition(": ")
            problems.append(Problem(key, parameters.get(key), message, _FIX))
            if good.pop(key, None) is None:
                break
        else:
            break
    if problems:
        raise Rejected(*problems)
    return {"name": name, **asdict(policy)}


def named(value: object) -> object:
    """A bare name as a mapping."""
    return {"name": value} if isinstance(value, str) else value


Engine = Annotated[EngineChoice, BeforeValidator(named)]
