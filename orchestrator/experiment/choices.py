"""The prompt, engines and policies of an experiment, as files name them."""

from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from orchestrator.experiment.problems import NotShown, Problem, Rejected, unknown
from parties.engines import ENGINES, STOCK_IS_INSECURE, Randomness
from parties.messages import read_messages
from parties.options import SpuProtocol
from parties.policies import POLICIES, UnknownPolicy, policy_class
from parties.policies.checks import OutOfRange
from parties.policies.choice import PolicyChoice, parameters_of
from parties.roles.job import Prompt
from parties.text_file import LFS_POINTER, Unreadable, is_lfs_pointer, looks_like_path

Shaping = Literal["auto", "tc", "relay", "proxy"]
RoleName = Literal["client", "server", "dealer", "referee"]

_WITH_RANDOMNESS = "crypten"  # the engine with a choice of randomness
_WITH_PROTOCOL = "spu"  # the engine with a choice of protocols
_PASTED = NotShown("a path is expected, this looks like the text itself")
_FIX = "correct the value, or take it out for the default"


def folders(info: ValidationInfo) -> list[Path]:
    """The folders that relative paths start from: that of the experiment file, then the working directory."""
    own = (info.context or {}).get("folder")
    return list(dict.fromkeys([Path(own).resolve(), Path.cwd()])) if own else [Path.cwd()]


def located(path: str, info: ValidationInfo) -> Path | None:
    """The absolute path of an existing file or folder, or None.

    Raises:
        Rejected: The path cannot be looked up: `~` of an unknown user, no home folder, no permission to search a
            folder, a name that is too long or contains a NUL.
    """
    try:
        places = [folder / Path(path).expanduser() for folder in folders(info)]
        return next((place.resolve() for place in places if place.exists()), None)
    except RuntimeError:  # of `expanduser`
        allowed, fix = "a path with a ~ whose home folder is known", "write the whole path, or set HOME"
        reason = ""
    except OSError as error:
        allowed, fix, reason = "a path that can be looked up", "correct the path", error.strerror or ""
    except ValueError:
        allowed, fix, reason = "a path without a NUL character", "correct the path", ""
    raise Rejected(Problem("", path, allowed, fix, reason))


def readable_file(path: str, info: ValidationInfo) -> str:
    """The absolute path of a file that can be read.

    Raises:
        Rejected: There is no such file. The message shows the value only if it looks like a path, since it may be a
            pasted prompt.
    """
    try:
        found = located(path, info)
    except Rejected:
        if looks_like_path(path):
            raise
        found = None
    if found is not None and found.is_file():
        try:
            with found.open("rb") as file:
                file.read(1)
        except OSError as error:
            fix = "correct its permissions, or name another file"
            raise Rejected(Problem("", path, "a file that may be read", fix, error.strerror or "")) from None
        if is_lfs_pointer(found):
            reason, _, fix = LFS_POINTER.partition("; ")
            raise Rejected(Problem("", path, "a text file", fix, reason))
        return str(found)
    allowed = f"a file that exists, absolute or below {' or '.join(map(str, folders(info)))}"
    if found is None and not looks_like_path(path):
        raise Rejected(Problem("", _PASTED, allowed, "write it to a file, and name that"))
    raise Rejected(Problem("", path, allowed, "correct the path"))


def _written_out(given: object, info: ValidationInfo) -> object:
    """A prompt whose messages are in the experiment file itself names that file: a job and a record never hold them."""
    if not isinstance(given, dict) or not isinstance(given.get("messages"), list):
        return given
    file = (info.context or {}).get("file")
    if file is None:
        fix = "write them to a file, and name that"
        raise Rejected(Problem("messages", NotShown(), "the path of a file, outside of an experiment file", fix))
    return {**given, "messages": str(Path(file).resolve())}


def _found(prompt: Prompt, info: ValidationInfo) -> Prompt:
    """A prompt with exactly one source; in an experiment, its file exists and can be read."""
    sources = [prompt.text_file is not None, prompt.messages is not None, prompt.random_tokens]
    if sum(sources) != 1:
        given = "several" if any(sources) else "none"
        fix = "write {text_file: PATH}, {messages: [...]} or {random_tokens: true}"
        raise Rejected(Problem("", given, "exactly one of text_file, messages and random_tokens", fix))
    if prompt.random_tokens and prompt.special_tokens:
        fix = "take it out: random tokens are not read from a text"
        raise Rejected(Problem("special_tokens", True, "false with random_tokens", fix))
    if prompt.lines and prompt.text_file is None:
        raise Rejected(Problem("lines", True, "false without text_file", "take it out: only a text has lines"))
    if prompt.file is None or not info.context:  # a record outlives its prompt and is read on other machines
        return prompt
    key, path = prompt.file
    try:
        found = readable_file(path, info)
        if key == "messages":
            _require_messages(path, found)
        return prompt.model_copy(update={key: found})
    except Rejected as error:
        raise Rejected(*(replace(problem, path=key) for problem in error.problems)) from None


def _require_messages(path: str, found: str) -> None:
    try:
        read_messages(Path(found))
    except Unreadable as error:
        allowed, fix = "a list of messages, each with role and content", "correct the list; role and content are texts"
        raise Rejected(Problem("", path, allowed, fix, str(error))) from None


ChosenPrompt = Annotated[Prompt, BeforeValidator(_written_out), AfterValidator(_found)]
"""The client's prompt as an experiment file gives it."""


class EngineChoice(BaseModel):
    """An engine by name; `crypten` with its source of randomness, `spu` with a protocol.

    In an experiment `crypten` is `private` unless it says `stock` (see `Engine`). Records of earlier versions have no
    `randomness` and were measured with `stock`. Therefore a choice without `randomness` is `stock` here, and ids leave
    out `stock`: cells of earlier versions keep their ids, and private cells have ids of their own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description=f"One of {', '.join(ENGINES)}.", examples=["crypten"])
    randomness: Randomness | None = Field(
        default=None,
        description="Source of the random numbers of `crypten`. `private`: our keystream, AES-256 in counter mode. "
        "`stock`: CrypTen's own generator, which is insecure: " + STOCK_IS_INSECURE + ".",
        examples=["private"],
    )
    protocol: SpuProtocol | None = Field(
        default=None,
        description="Protocol of `spu`, instead of the one under `spu`; several in one sweep are compared.",
        examples=["semi2k"],
    )

    @property
    def identity(self) -> dict[str, str]:
        """The part of a cell's id."""
        return {key: value for key, value in self.model_dump().items() if value != "stock"}

    def __str__(self) -> str:
        """The name, with the randomness where it is not the default of an experiment, or with the protocol."""
        return "-".join([self.name, *(["stock"] if self.randomness == "stock" else []), *filter(None, [self.protocol])])

    @model_validator(mode="before")
    @classmethod
    def _stock_unless_named(cls, given: object) -> object:
        if isinstance(given, dict) and given.get("name") == _WITH_RANDOMNESS:
            return {"name": _WITH_RANDOMNESS, **given, "randomness": given.get("randomness") or "stock"}
        return given

    @model_validator(mode="after")
    def _only_with_a_choice(self) -> Self:
        for key, engine in (("randomness", _WITH_RANDOMNESS), ("protocol", _WITH_PROTOCOL)):
            if (value := getattr(self, key)) is not None and self.name != engine:
                fix = f"take it out: {self.name} has one way only"
                raise Rejected(Problem(key, value, f"no value, except with engine {engine}", fix))
        return self

    @model_serializer(mode="wrap")
    def _without_none(self, dump: SerializerFunctionWrapHandler) -> dict[str, str]:
        return {key: value for key, value in dump(self).items() if value is not None}

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in ENGINES:
            raise Rejected(unknown("", name, list(ENGINES), "engine"))
        return name


def chosen_policy(given: object) -> PolicyChoice:
    """A policy from a name or a mapping, with all parameters checked and defaults filled in.

    Raises:
        Rejected: The policy or a parameter is unknown, or a value is outside its range.
    """
    if isinstance(given, PolicyChoice):
        return given
    given = named(given)
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise Rejected(Problem("", given, f"one of {', '.join(POLICIES)}", "write a name, or {name: NAME, ...}"))
    name = given["name"]
    if name not in POLICIES and ":" not in name:
        raise Rejected(unknown("name", name, [*POLICIES, "module:Class"], "policy name"))
    try:
        policy_class(name)
    except UnknownPolicy as error:
        allowed = "module:Class of a dataclass below parties.policies.base.Policy"
        fix = "correct the name, or add the folder of the module to PYTHONPATH"
        raise Rejected(Problem("name", name, allowed, fix, str(error))) from None
    return PolicyChoice(**_with_defaults(name, {key: v for key, v in given.items() if key != "name"}))


def _with_defaults(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """The policy's name and all parameters; retries without each bad one to find all problems."""
    types = _types(policy_class(name))
    problems = [unknown(key, key, list(types), "parameter") for key in parameters if key not in types]
    good: dict[str, Any] = {}
    for key in set(parameters) & set(types):
        try:
            good[key] = types[key].validate_python(parameters[key], strict=True)
        except ValidationError as error:
            problems.append(Problem(key, parameters[key], _allowed(name, key, parameters[key], error), _FIX))
    while True:
        try:
            policy = PolicyChoice(name=name, **good).build()
        except OutOfRange as error:
            problems.append(Problem(error.key, error.value, error.allowed, _FIX))
            if good.pop(error.key, None) is None:
                break
        except Exception as error:  # noqa: BLE001 - a policy from elsewhere may raise anything
            problems.append(Problem("", parameters, "parameters that the policy accepts", _FIX, str(error)))
            break
        else:
            break
    if problems:
        raise Rejected(*problems)
    return {"name": name, **parameters_of(policy)}


@cache
def _types(policy_type: type[Any]) -> dict[str, TypeAdapter[Any]]:
    """The types of a policy's parameters; a file of records asks for them once a line."""
    hints = get_type_hints(policy_type)
    return {field.name: TypeAdapter(hints[field.name]) for field in fields(policy_type)}


def _allowed(name: str, key: str, value: object, error: ValidationError) -> str:
    """What a parameter of the wrong type may be: by the policy's own check of it, or else by its type."""
    detail = error.errors()[0]
    if detail["type"].startswith("bool"):
        return "`true` or `false`"
    try:
        PolicyChoice(name=name, **{key: value}).build()
    except OutOfRange as own:
        if own.key == key:
            return own.allowed
    except Exception:  # noqa: BLE001, S110 - a policy that did not expect the type
        pass
    return detail["msg"].removeprefix("Input should be ")


def named(value: object) -> object:
    """A bare name as a mapping."""
    return {"name": value} if isinstance(value, str) else value


def _private_unless_named(value: object) -> object:
    given = named(value)
    if isinstance(given, dict) and given.get("name") == _WITH_RANDOMNESS:
        return {"randomness": "private", **given}
    return given


def _policy(given: object, info: ValidationInfo) -> PolicyChoice:
    """A policy of a file. In a record, which has no context, a `module:Class` is not checked.

    A record must be readable where its policy cannot be imported, and reading it must not run that module.
    """
    outside = isinstance(given, dict) and ":" in str(given.get("name"))
    if outside and not info.context:
        return PolicyChoice.model_validate(given)
    return chosen_policy(given)


ChosenPolicy = Annotated[PolicyChoice, BeforeValidator(_policy)]
"""A policy as an experiment file or a record gives it."""

Engine = Annotated[EngineChoice, BeforeValidator(_private_unless_named)]
"""An engine as an experiment file gives it; the default of `crypten` is `private`."""
