"""Cells: the fully resolved points of a sweep, each identified by a hash of what it measures."""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from orchestrator.experiment.axes import points
from orchestrator.experiment.choices import ChosenPolicy, ChosenPrompt, EngineChoice, Shaping
from orchestrator.experiment.comparison import choose_comparison
from orchestrator.experiment.experiment import Experiment, model_spec
from orchestrator.experiment.networks import ResolvedNetwork
from orchestrator.experiment.selection_use import choose_use
from orchestrator.experiment.softmax_form import choose_softmax
from parties.options import RunOptions, SoftmaxForm
from parties.policies.choice import PolicyChoice, parameters_of

if TYPE_CHECKING:
    from parties.policies.base import Policy

SCHEMA = 1
"""Part of every id; increased when the same values change their meaning."""

# The fields that every id contains. Later fields are part of an id only where they differ from their defaults, so that
# records of earlier versions keep their ids.
_ALWAYS_IN_ID = {
    "engine", "model", "policy", "seq_len", "new_tokens", "network", "shaping", "prefill", "argmax", "prompt", "gpu",
    "seed", "repeat",
}  # fmt: skip
_NEVER_IN_ID = {"timeout_s", "cell_timeout_s", "data_ports"}


class _Point(BaseModel):
    """The part of a cell that says what is measured, without how it is run."""

    engine: EngineChoice = Field(description="The secure computation.")
    model: str = Field(description="The model, as in the experiment; local paths are absolute.")
    policy: ChosenPolicy = Field(description="The cache policy with all its parameters.")
    seq_len: int = Field(description="Tokens of the prompt.")
    new_tokens: int = Field(description="Tokens to decode.")
    network: ResolvedNetwork = Field(description="Links between the parties.")
    shaping: Shaping = Field(default="auto", description="The back end that shapes the links.")
    prompt: ChosenPrompt = Field(description="Source of the client's prompt.")
    batch: int = Field(default=1, description="Prompts of the client that decode side by side.")


class Cell(RunOptions, _Point):
    """One measurement. Its id leaves out values that cannot change the result: time-outs and port numbers."""

    gpu: bool = Field(description="Whether each party has a GPU.")
    seed: int = Field(description="Seed of public random choices.")
    repeat: int = Field(description="Which repeat of the same measurement, from 0.")
    warmup: bool = Field(default=False, description="Whether this is a warm-up run, which no average includes.")
    timeout_s: float = Field(description="Seconds without a byte after which a peer is considered hanging.")
    cell_timeout_s: float = Field(description="Seconds after which the cell is stopped.")
    data_ports: dict[str, int] = Field(default={}, description="Fixed data ports by role.")

    @property
    def id(self) -> str:
        """16 hexadecimal digits: a hash of the resolved values."""
        values: dict[str, Any] = self.model_dump(mode="json", include=_ALWAYS_IN_ID) | {"engine": self.engine.identity}
        values |= self.model_dump(mode="json", exclude=_ALWAYS_IN_ID | _NEVER_IN_ID, exclude_defaults=True)
        canonical = json.dumps({"schema": SCHEMA, **values}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def prompt_tokens(self) -> str:
        """Tokens of the prompt, or number and tokens of the prompts of a batch: `512`, `16 x 512`."""
        return str(self.seq_len) if self.batch == 1 else f"{self.batch} x {self.seq_len}"

    def __str__(self) -> str:
        """A short description."""
        words = [f"{self.engine} {self.policy} {self.prompt_tokens} tokens"]
        words += [f"draft {self.draft}"] if self.draft else []
        words += [f"network {self.network.name}"]
        words += ["warm-up"] if self.warmup else []
        words += [f"repeat {self.repeat}"] if self.repeat else []
        return ", ".join(words)


def expand(experiment: Experiment) -> tuple[Cell, ...]:
    """All cells of an experiment.

    They are ordered by network, engine, length, policy, warm-up and repeat; see `schedule` for the order of execution.
    """
    fixed = {name: getattr(experiment, name) for name in Cell.model_fields.keys() & Experiment.model_fields.keys()}
    return tuple(_resolved(fixed | point._asdict()) for point in points(experiment))


def _resolved(values: dict[str, Any]) -> Cell:
    """The cell with the options that its engine reads, each `auto` resolved."""
    if values["comparison"] == "auto":
        values = values | {"comparison": choose_comparison(values["network"], values["offline"])}
    if values["policy"].parameters.get("use") == "auto":
        values = values | {"policy": _policy_for(values)}
    if values["softmax"] == "auto":
        values = values | {"softmax": _softmax_for(values)}
    if protocol := values["engine"].protocol:
        values = values | {"spu": values["spu"].model_copy(update={"protocol": protocol})}
    cell = Cell(**values)
    return cell.read_by(cell.engine.name)


def _policy_for(values: dict[str, Any]) -> PolicyChoice:
    """The policy with `use: auto` resolved; engines but `fss` have one way."""
    policy, use = values["policy"].build(), "scores"
    if values["engine"].name == "fss":
        use = choose_use(policy, model_spec(values["model"]), _held(policy, values), values["network"])
    return PolicyChoice(name=values["policy"].name, **parameters_of(replace(policy, use=use)))


def _softmax_for(values: dict[str, Any]) -> SoftmaxForm:
    """The form of the softmax for `softmax: auto`; engines but `fss` have one."""
    if values["engine"].name != "fss":
        return "tables"
    policy, how = values["policy"].build(), {key: values[key] for key in ("batch", "offline")}
    return choose_softmax(policy, model_spec(values["model"]), _held(policy, values), values["network"], **how)


def _held(policy: "Policy", values: dict[str, Any]) -> int:
    """Cached tokens of a layer when the last token is decoded."""
    return policy.held(values["seq_len"] - 1, values["new_tokens"])


def schedule(cells: Sequence[Cell], seed: int) -> tuple[Cell, ...]:
    """The order of execution: blocks of equal network and engine, each with its warm-ups first and the rest shuffled.

    Those of an engine follow each other, since its parties keep their model from network to network.

    Args:
        cells: The cells, in the order of `expand`.
        seed: The same seed gives the same order.
    """
    blocks: dict[EngineChoice, dict[str, list[Cell]]] = {}
    for cell in cells:
        blocks.setdefault(cell.engine, {}).setdefault(cell.network.name, []).append(cell)
    dice = random.Random(seed)  # noqa: S311 - a public order, not a secret
    return tuple(cell for engine in blocks.values() for block in engine.values() for cell in _shuffled(block, dice))


def _shuffled(block: list[Cell], dice: random.Random) -> list[Cell]:
    counted = [cell for cell in block if not cell.warmup]
    return [cell for cell in block if cell.warmup] + dice.sample(counted, len(counted))
