"""Cells: the points of a sweep, fully resolved, each known by a hash of what it measures."""

import hashlib
import json
from itertools import product
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.choices import EngineChoice, PolicyChoice, Prompt
from orchestrator.experiment import Experiment
from orchestrator.networks import Network

SCHEMA = 1
"""Goes into every id; counts up when the same values come to mean something else."""

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
    gpu: bool = Field(description="Whether each party has a GPU.")
    seed: int = Field(description="Seed of public random choices.")
    repeat: int = Field(description="Which repeat of the same measurement, from 0.")
    timeout_s: float = Field(description="Seconds without a byte after which a peer counts as hanging.")
    cell_timeout_s: float = Field(description="Seconds after which the cell is given up.")
    data_ports: dict[str, int] = Field(default={}, description="Fixed data ports by role.")

    @property
    def id(self) -> str:
        """16 hexadecimal digits that stand for the resolved values."""
        values: dict[str, Any] = self.model_dump(mode="json", exclude=_NOT_MEASURED)
        canonical = json.dumps({"schema": SCHEMA, **values}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        """The cell in a few words."""
        words = f"{self.engine.name} {self.policy} {self.seq_len} tokens, network {self.network.name}"
        return f"{words}, repeat {self.repeat}" if self.repeat else words


def expand(experiment: Experiment) -> tuple[Cell, ...]:
    """All cells of an experiment.

    Ordered by network, then engine, so that links are shaped and parties started as rarely as possible; then by length,
    policy and repeat.
    """
    fixed = {name: getattr(experiment, name) for name in Cell.model_fields.keys() & Experiment.model_fields.keys()}
    points = product(
        experiment.networks, experiment.engines, experiment.seq_lens, experiment.policies, range(experiment.repeats)
    )
    return tuple(
        Cell(**fixed, network=network, engine=engine, seq_len=seq_len, policy=policy, repeat=repeat)
        for network, engine, seq_len, policy, repeat in points
    )
