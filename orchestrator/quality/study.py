"""Study files: YAML that names the policies and tasks to evaluate, checked completely before anything starts."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from orchestrator.experiment.choices import ChosenPolicy, chosen_policy, named, readable_file
from orchestrator.experiment.experiment import model_spec, require_loadable
from orchestrator.experiment.problems import ConfigError, Problem, Rejected, problems_of, unknown
from orchestrator.experiment.yaml_files import read_mapping
from parties.policies.choice import PolicyChoice

FIDELITY, LONGBENCH, LONGEVAL = "fidelity", "longbench", "longeval"
_GENERATED = ("needle_single", "needle_multikey", "needle_multivalue", "variable_tracking", "line_retrieval")
TASKS = (FIDELITY, *_GENERATED, LONGBENCH, LONGEVAL)
_WITH_FILE = (FIDELITY, LONGBENCH, LONGEVAL)
_BY_BUDGET = {"compression_ratio", "static_keep", "select"}
"""Parameters that a budget sets."""

Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class TaskChoice(BaseModel):
    """A task by name, with its file if it reads one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description=f"One of {', '.join(TASKS)}.", examples=["needle_single"])
    file: str | None = Field(
        default=None, description="For fidelity a text; else the benchmark's file.", examples=["a.txt"]
    )

    def __str__(self) -> str:
        """The name; for a benchmark also the name of its file."""
        return self.name if self.name in (FIDELITY, *_GENERATED) else f"{self.name}:{Path(self.file or '').stem}"

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in TASKS:
            raise Rejected(unknown("", name, TASKS, "task"))
        return name

    @field_validator("file")
    @classmethod
    def _exists(cls, file: str | None, info: ValidationInfo) -> str | None:
        return None if file is None else readable_file(file, info)

    @model_validator(mode="after")
    def _file_where_needed(self) -> Self:
        if (self.file is None) == (self.name in _WITH_FILE):
            allowed = "a path" if self.file is None else "no file, since the task is generated"
            raise Rejected(
                Problem("file", self.file, allowed, f"write {{name: {self.name}, file: PATH}}, or the name alone")
            )
        return self


class Contender(BaseModel):
    """A policy, and whether the study's budgets apply to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: ChosenPolicy
    budgeted: bool

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, given: object) -> object:
        given = named(given)
        if isinstance(given, dict) and set(given) == {"policy", "budgeted"}:  # as in study.json
            return given
        choice = chosen_policy(given)
        free = isinstance(given, dict) and not _BY_BUDGET & set(given)
        return {"policy": choice, "budgeted": free and bool(_BY_BUDGET & set(choice.parameters))}

    def at(self, budget: float) -> PolicyChoice:
        """The policy with parameters such that each step attends to about the share `budget` of the prompt.

        A policy that evicts once keeps that share. MPCache selects twice, so each of its two shares is the square root.
        """
        given = self.policy.parameters
        wanted = {"compression_ratio": round(1 - budget, 6)}
        if "static_keep" in given:
            wanted = dict.fromkeys(("static_keep", "select"), round(budget**0.5, 3))
        if "coarse" in given:  # no more can be selected than survive
            wanted["coarse"] = max(given["coarse"], wanted["select"])
        return chosen_policy({"name": self.policy.name, **self.policy.parameters, **wanted})


class Study(BaseModel):
    """A study: every policy at every budget, on every task at every length."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="Of the study.", examples=["quality"])
    model: str = Field(min_length=1, description="As in an experiment file.", examples=["smollm2-135m"])
    policies: tuple[Contender, ...] = Field(
        min_length=1,
        description="Policies: a name, which is tried at every budget, or a mapping with `name` and parameters; one "
        "that names `compression_ratio`, `static_keep` or `select` is tried as it is.",
        examples=["[full, snapkv, mpcache]"],
    )
    presses: tuple[str, ...] = Field(
        default=(),
        description="Presses of kvpress, or of yours, to evaluate like the policies, `module:Class(key=value)`; they "
        "have no private cost.",
        examples=['["kvpress:KnormPress(compression_ratio=0.5)"]'],
    )
    budgets: tuple[Share, ...] = Field(
        default=(0.5, 0.25, 0.125, 0.05),
        min_length=1,
        description="Shares of the prompt that count.",
        examples=["[0.5, 0.25]"],
    )
    tasks: tuple[Annotated[TaskChoice, BeforeValidator(named)], ...] = Field(
        min_length=1, description="What to evaluate on.", examples=["[needle_single, {name: fidelity, file: text.txt}]"]
    )
    lengths: tuple[Annotated[int, Field(strict=True, ge=64)], ...] = Field(
        min_length=1,
        description="Tokens of the context, at least 64; a LongBench prompt that is longer loses its middle.",
        examples=["[2048]"],
    )
    questions: tuple[Literal["visible", "hidden"], ...] = Field(
        default=("visible", "hidden"),
        min_length=1,
        description="Whether the cache is compressed with the question in sight (query-aware) or before it is known.",
        examples=["[hidden]"],
    )
    samples: Annotated[int, Field(strict=True, ge=1)] = Field(default=8, description="Of each task.", examples=["8"])
    continuation: Annotated[int, Field(strict=True, ge=1)] = Field(
        default=32, description="Tokens of text that fidelity follows, each decoded through the cache.", examples=["32"]
    )
    seed: Annotated[int, Field(strict=True, ge=0)] = Field(default=0, description="Of generated tasks.", examples=["0"])
    device: Literal["cpu", "cuda"] = Field(
        default="cpu", description="Where the plain engine computes.", examples=["cpu"]
    )

    @field_validator("model")
    @classmethod
    def _loads(cls, model: str) -> str:
        require_loadable(model, model)
        return model

    @field_validator("lengths")
    @classmethod
    def _fit(cls, lengths: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        most = model_spec(info.data["model"]).max_positions if "model" in info.data else max(lengths)
        bad = [
            Problem(f"[{i}]", length, f"at most {most}, the model's positions", "shorten it")
            for i, length in enumerate(lengths)
            if length > most
        ]
        if bad:
            raise Rejected(*bad)
        return lengths

    @model_validator(mode="after")
    def _windows_apply(self) -> Self:
        spec, longest = model_spec(self.model), max(self.lengths)
        for choice in self.choices():
            if problem := choice.build().window_problem(spec, longest):
                allowed = "full, or another one that does"
                raise Rejected(Problem("policies", str(choice), allowed, "shorten the contexts, or take full", problem))
        return self

    def choices(self) -> list[PolicyChoice]:
        """Every policy with its parameters, each once, the full cache first."""
        found = [chosen_policy("full")]
        for contender in self.policies:
            found += [contender.at(budget) for budget in self.budgets] if contender.budgeted else [contender.policy]
        return list({choice.model_dump_json(): choice for choice in found}.values())


def load_study(path: Path) -> Study:
    """Reads and checks a study file.

    Raises:
        ConfigError: With everything that is wrong with the file.
    """
    data: dict[str, Any] = read_mapping(path, Study.model_fields, "docs/quality.md")
    try:
        return Study.model_validate(data, context={"folder": path.parent})
    except ValidationError as error:
        raise ConfigError(str(path), problems_of(error, Study)) from None
