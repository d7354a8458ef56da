"""Experiment files: YAML that says what to measure, checked completely before anything starts."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from orchestrator.experiment.axes import Condition, check_exclude, check_linked, listed, points
from orchestrator.experiment.bounds import read_bounds
from orchestrator.experiment.choices import ChosenPolicy, ChosenPrompt, Engine, RoleName, Shaping, located
from orchestrator.experiment.drafts import draft_problems, read_draft
from orchestrator.experiment.networks import ResolvedNetwork, parse_network
from orchestrator.experiment.problems import ConfigError, Problem, Rejected, closest, join, problems_of
from orchestrator.experiment.yaml_files import read_mapping
from parties.engines.limits import MOST_SEQUENCES, beyond
from parties.errors import ModelError
from parties.options import CARRY_IN_FILES, MAPPING_IN_FILES, Bounds, DraftOptions, RunOptions

if TYPE_CHECKING:
    from parties.models.spec import ModelSpec

Count = Annotated[int, Field(strict=True, ge=1)]
Batch = Annotated[int, Field(strict=True, ge=1, le=MOST_SEQUENCES)]
Seconds = Annotated[float, Field(gt=0, le=7 * 24 * 3600, allow_inf_nan=False)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]


def _distinct(values: Sequence[object]) -> Sequence[object]:
    """Rejects a list with equal values: their cells would have the same id."""
    again = [i for i, value in enumerate(values) if value in values[:i]]
    if again:
        raise Rejected(
            *(Problem(f"[{i}]", str(values[i]), "each value once", "take it out; use repeats to repeat") for i in again)
        )
    return values


_Listed = [Field(min_length=1), AfterValidator(_distinct)]


class Sweep(BaseModel):
    """The cells and their order.

    Cells are the product of engines, policies, seq_lens and networks. Axes may be linked, points excluded, and
    measurements repeated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="Letters, digits, `.`, `_` and `-`, up to 64. One output folder holds one experiment.",
        examples=["quickstart"],
    )
    model: str = Field(
        min_length=1,
        description="`smollm2-135m`, a folder, a hub id or a GGUF file of a model of a known family, or "
        "`random:<shape>` for runs where only shapes matter.",
        examples=["smollm2-135m"],
    )
    prompt: ChosenPrompt = Field(
        repr=False, description="The client's prompt; secret.", examples=["{text_file: prompts/article.txt}"]
    )
    engines: Annotated[tuple[Engine, ...], *_Listed] = Field(
        description="Secure computations to compare.", examples=["[crypten]"]
    )
    policies: Annotated[tuple[ChosenPolicy, ...], *_Listed] = Field(
        description="Cache policies to compare: a name, or a mapping with `name` and parameters.",
        examples=["[full, {name: mpcache, static_keep: 0.4, select: 0.2}]"],
    )
    new_tokens: Count = Field(default=2, description="Tokens to decode in each cell.", examples=["2"])
    seq_lens: Annotated[tuple[Annotated[int, Field(strict=True, ge=2)], ...], *_Listed] = Field(
        description="Prompt lengths in tokens, at least 2. All but the last token are prefilled; the last one is the "
        "first private step, so every new token is decoded privately.",
        examples=["[128, 256]"],
    )
    networks: Annotated[tuple[Annotated[ResolvedNetwork, BeforeValidator(parse_network)], ...], *_Listed] = Field(
        default=(ResolvedNetwork(name="none"),),
        validate_default=True,
        description="Links between the parties: `none`, a preset, or a mapping with values of its own.",
        examples=["[none]"],
    )
    batch: Annotated[tuple[Batch, ...], BeforeValidator(listed), *_Listed] = Field(
        default=(1,),
        description="How many prompts of the client decode side by side: they share rounds, and matrices are read once "
        "for all. See `lines` of the prompt, and running.md.",
        examples=["[1, 4, 16]"],
    )
    linked: tuple[tuple[str, ...], ...] = Field(
        default=(),
        description="Axes that vary together instead of being combined, such as each length with a network of its own; "
        "`networks`, `engines`, `seq_lens`, `policies`, `batch` or `draft`, with as many values each.",
        examples=["[[networks, seq_lens]]"],
    )
    exclude: tuple[Condition, ...] = Field(
        default=(),
        description="Cells to leave out: those that have one of the values on each axis named. Axes are `network`, "
        "`engine`, `seq_len`, `policy`, `batch`, `draft` and `repeat`, with a value or a list.",
        examples=["[{engine: crypten, seq_len: [512, 1024]}]"],
    )
    repeats: Count = Field(default=1, description="How often each cell is measured.", examples=["3"])
    warmup: Annotated[int, Field(strict=True, ge=0, le=10)] = Field(
        default=0,
        description="Runs of each measurement before its repeats; recorded, and left out of every average.",
        examples=["1"],
    )
    order: Literal["seeded", "listed"] = Field(
        default="seeded",
        description="`seeded`: cells with the same network and engine run together, shuffled by the seed, so that a "
        "slow drift of the machine does not look like an effect of length or policy. `listed`: as written.",
        examples=["seeded"],
    )
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = Field(
        default=0, description="Seed of public random choices, such as a prompt of random tokens.", examples=["0"]
    )
    shaping: Shaping = Field(
        default="auto",
        description="The back end that shapes the links: `auto` takes the first one that can; see networks.md.",
        examples=["auto"],
    )

    @field_validator("model")
    @classmethod
    def _resolve_model(cls, model: str, info: ValidationInfo) -> str:
        found = None if model.startswith("random:") else located(model, info)
        source = model if found is None else str(found)
        require_loadable(model, source)
        return source

    @field_validator("seq_lens")
    @classmethod
    def _fits_model(cls, seq_lens: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if "model" not in info.data or "new_tokens" not in info.data:
            return seq_lens
        model, new_tokens = info.data["model"], info.data["new_tokens"]
        most = model_spec(model).max_positions
        too_long = [
            Problem(
                f"[{i}]",
                seq_len,
                f"at most {most - new_tokens}",
                "shorten the prompt, or lower new_tokens",
                f"{model} has {most} positions, and {seq_len} prompt tokens and {new_tokens} new tokens need "
                f"{seq_len + new_tokens}",
            )
            for i, seq_len in enumerate(seq_lens)
            if seq_len + new_tokens > most
        ]
        if too_long:
            raise Rejected(*too_long)
        return seq_lens


_Draft = Annotated[DraftOptions | None, BeforeValidator(read_draft)]


class Experiment(RunOptions, Sweep):
    """An experiment: the cells of a sweep, and how each of them runs."""

    comparison: Annotated[Literal["auto", "dcf", "prefix"], *CARRY_IN_FILES] = Field(  # type: ignore[assignment] # wider
        default="auto",
        description=f"{RunOptions.model_fields['comparison'].description} `auto`: whichever takes less time on the "
        "cell's links.",
        examples=["auto"],
    )
    softmax: Literal["auto", "tables", "dpf"] = Field(  # type: ignore[assignment] # wider
        default="tables",
        description=f"{RunOptions.model_fields['softmax'].description} `auto`: whichever takes less time on the cell's "
        "links.",
        examples=["auto"],
    )
    bounds: Annotated[Bounds, *MAPPING_IN_FILES, BeforeValidator(read_bounds)] = Field(
        default=(),
        description=RunOptions.model_fields["bounds"].description,
        examples=["bounds.yaml"],
    )
    draft: Annotated[tuple[_Draft, ...], BeforeValidator(listed), *_Listed] = Field(  # type: ignore[assignment] # wider
        default=(None,),
        description=f"{RunOptions.model_fields['draft'].description} Or a list of these, and of `none`.",
        examples=["[none, {lookup: 4}]"],
    )
    gpu: bool = Field(default=False, strict=True, description="Whether each party needs a GPU.", examples=["false"])
    timeout_s: Seconds = Field(
        default=60.0, description="Seconds without a byte after which a peer is considered hanging.", examples=["60"]
    )
    cell_timeout_s: Seconds = Field(
        default=3600.0, description="Seconds after which a cell is stopped.", examples=["3600"]
    )
    data_ports: dict[RoleName, Port] = Field(
        default={},
        description="Fixed data ports by role; roles without one take a free port.",
        examples=["{client: 7101, server: 7102, dealer: 7103, referee: 7104}"],
    )
    show_text: bool = Field(
        default=False,
        strict=True,
        description="Show the decoded text, the client's secret, in the terminal.",
        examples=["false"],
    )

    @model_validator(mode="after")
    def _axes_fit(self) -> Self:
        for key, check in (("linked", check_linked), ("exclude", check_exclude)):
            if problems := check(self):
                raise Rejected(*(replace(problem, path=join(key, problem.path)) for problem in problems))
        if problems := [*draft_problems(self, model_spec), *self._several_chats(), *self._beyond_engines()]:
            raise Rejected(*problems)
        return self

    def _several_chats(self) -> list[Problem]:
        """Batches of a chat, which is one prompt."""
        fix = "take 1, or give the prompts as the lines of a text_file"
        return [
            Problem(f"batch[{i}]", batch, "1 with messages", fix, "a chat is one prompt")
            for i, batch in enumerate(self.batch)
            if batch > 1 and self.prompt.messages is not None
        ]

    def _beyond_engines(self) -> list[Problem]:
        """Lengths and models beyond the limits of an engine of the sweep, and policies beyond a window of the model."""
        found, spec = {}, model_spec(self.model)
        for point in points(self) if spec.windows else ():
            if problem := point.policy.build().window_problem(spec, point.seq_len + self.new_tokens):
                path, allowed = f"policies[{self.policies.index(point.policy)}]", "full, or another one that does"
                found[path] = Problem(path, str(point.policy), allowed, "shorten the sequence, or take full", problem)
        for engine, seq_len in sorted({(point.engine.name, point.seq_len) for point in points(self)}):
            over = beyond(engine, spec, seq_len + self.new_tokens)
            if over is None:
                continue
            if over.parameter == "tokens":
                path, most = f"seq_lens[{self.seq_lens.index(seq_len)}]", over.most - self.new_tokens
                fix = f"shorten the prompt, lower new_tokens, or exclude engine {engine} at this length"
                found[path] = Problem(path, seq_len, f"at most {most}", fix, f"with engine {engine}, {over}")
            else:
                fix = f"take another model, or leave out engine {engine}"
                found["model"] = Problem(
                    "model", self.model, "a model within the engine's limits", fix, f"with engine {engine}, {over}"
                )
        return list(found.values())


@lru_cache(maxsize=16)
def model_spec(model: str) -> "ModelSpec":
    """The public description of a model.

    Raises:
        ModelError: The model cannot be found, or its type is not supported.
    """
    from parties.models import load_spec  # torch comes with it, and most commands do without

    return load_spec(model)


def require_loadable(model: str, source: str) -> None:
    """Checks that a model can be loaded.

    Args:
        model: The model as the user wrote it.
        source: Where it was found: `model` itself, or the path that it stands for.

    Raises:
        Rejected: It cannot.
    """
    try:
        model_spec(source)
    except ModelError as error:
        from parties.models.random_model import SHAPES

        near = closest(model, ["smollm2-135m", *(f"random:{shape}" for shape in SHAPES)])
        allowed, fix = "a model that can be loaded", "correct the name, or take another model"
        fix = f"write {near}, or take another model" if near and "?" not in model else fix
        raise Rejected(Problem("", model, allowed, fix, str(error))) from None


def load_experiment(path: Path) -> Experiment:
    """Reads and checks an experiment file.

    Raises:
        ConfigError: The file is not valid; the error holds all problems.
    """
    data = read_mapping(path, Experiment.model_fields, "docs/experiments.md")
    try:
        return Experiment.model_validate(data, context={"folder": path.parent, "file": path})
    except ValidationError as error:
        raise ConfigError(str(path), problems_of(error, Experiment)) from None
