"""Cells: the points of a sweep, fully resolved, each known by a hash of what it measures."""

import hashlib
import json
import random
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.experiment.axes import points
from orchestrator.experiment.choices import EngineChoice, PolicyChoice, Prompt
from orchestrator.experiment.comparison import choose_comparison
from orchestrator.experiment.experiment import Experiment
from orchestrator.experiment.networks import Network

SCHEMA = 1
"""Goes into every id; counts up when the same values come to mean something else."""

# What an id has always contained. A later field joins only where it differs from its default, so that records of
# earlier versions keep their ids.
_FIRST = {
    "engine", "model", "policy", "seq_len", "new_tokens", "network", "shaping", "prefill", "argmax", "prompt", "gpu",
    "seed", "repeat",
}  # fmt: skip
_NOT_MEASURED = {"timeout_s", "cell_timeout_s", "data_ports"}


class Cell(BaseModel):
    """One measurement. The id leaves out what cannot change its result: time-outs and port numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: EngineChoice = Field(description="The secure computation.")
    model: str = Field(description="The model, as in the experiment; local paths are absolute.")
    policy: PolicyChoice = Field(description="The cache policy with all its parameters.")
    seq_len: int = Field(description="Tokens of the prompt.")
    new_tokens: int = Field(description="Tokens to decode.")
    network: Network = Field(description="Links between the parties.")
    shaping: str = Field(default="auto", description="What makes the links as asked.")
    prefill: str = Field(description="How the prompt gets into the cache.")
    argmax: str = Field(description="How the next token is chosen.")
    prompt: Prompt = Field(description="Where the client finds its prompt.")
    offline: str = Field(default="streamed", description="When the dealer's material reaches the parties.")
    comparison: str = Field(default="dcf", description="How the engine `fss` finds signs.")
    gpu: bool = Field(description="Whether each party has a GPU.")
    seed: int = Field(description="Seed of public random choices.")
    repeat: int = Field(description="Which repeat of the same measurement, from 0.")
    warmup: bool = Field(default=False, description="Whether this run only warms up and counts for nothing.")
    timeout_s: float = Field(description="Seconds without a byte after which a peer counts as hanging.")
    cell_timeout_s: float = Field(description="Seconds after which the cell is given up.")
    data_ports: dict[str, int] = Field(default={}, description="Fixed data ports by role.")

    @property
    def id(self) -> str:
        """16 hexadecimal digits that stand for the resolved values."""
        values: dict[str, Any] = self.model_dump(mode="json", include=_FIRST) | {"engine": self.engine.identity}
        values |= self.model_dump(mode="json", exclude=_FIRST | _NOT_MEASURED, exclude_defaults=True)
        canonical = json.dumps({"schema": SCHEMA, **values}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        """The cell in a few words."""
        words = f"{self.engine} {self.policy} {self.seq_len} tokens, network {self.network.name}"
        return ", ".join(
            [words, *(["warm-up"] if self.warmup else []), *([f"repeat {self.repeat}"] if self.repeat else [])]
        )


def expand(experiment: Experiment) -> tuple[Cell, ...]:
    """All cells of an experiment.

    Ordered by network, then engine, so that links are shaped and parties started as rarely as possible; then by length,
    policy, warm-up and repeat.
    """
    fixed = {name: getattr(experiment, name) for name in Cell.model_fields.keys() & Experiment.model_fields.keys()}
    return tuple(_resolved(Cell(**fixed | point._asdict())) for point in points(experiment))


def _resolved(cell: Cell) -> Cell:
    """The cell with its way of comparing chosen; engines that know one way only have the defaults."""
    if cell.engine.name != "fss":
        return cell.model_copy(update={"offline": "streamed", "comparison": "dcf"})
    if cell.comparison != "auto":
        return cell
    return cell.model_copy(update={"comparison": choose_comparison(cell.network, cell.offline)})


def schedule(cells: Sequence[Cell], seed: int) -> tuple[Cell, ...]:
    """The order in which to run: by blocks of equal network and engine, each shuffled after its warm-ups.

    Args:
        cells: In the order of `expand`.
        seed: The same seed gives the same order.
    """
    blocks: dict[tuple[str, EngineChoice], list[Cell]] = {}
    for cell in cells:
        blocks.setdefault((cell.network.name, cell.engine), []).append(cell)
    dice = random.Random(seed)  # noqa: S311 - a public order, not a secret
    return tuple(cell for block in blocks.values() for cell in _shuffled(block, dice))


def _shuffled(block: list[Cell], dice: random.Random) -> list[Cell]:
    counted = [cell for cell in block if not cell.warmup]
    return [cell for cell in block if cell.warmup] + dice.sample(counted, len(counted))
