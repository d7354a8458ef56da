"""The workload of an engine in a cell: public values that determine all of the cell's programs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from parties.models.spec import ModelSpec
from parties.options import DEFAULTS, RunOptions

CHUNK_BYTES = 1 << 28
"""Memory that a party may take for the numbers of one chunk in one step of a layer."""


@dataclass(frozen=True)
class Prefill:
    """Public sizes of a prompt that client and server run themselves.

    Each layer takes the prompt chunk by chunk: queries of a chunk attend to the tokens up to the chunk's last. A
    smaller chunk needs less memory and more rounds; the result is the same but for rounding.

    Attributes:
        tokens: Tokens of the prompt.
        chunk: Tokens of a chunk; the last chunk may have fewer.
    """

    tokens: int
    chunk: int


@dataclass(frozen=True)
class Workload:
    """A model, a policy, the prompt to run or the shapes of a prefilled cache, and how many tokens to decode.

    Attributes:
        spec: The model.
        policy: Name of the policy.
        parameters: All parameters of the policy.
        steps: Tokens to decode.
        options: The cell's engine options.
        position: Position of the next token; 0 if the prompt is run.
        shapes: Shapes of the prefilled cache's values, by name; empty if the prompt is run.
        prefill: The prompt to run, or None if the cache is prefilled.
    """

    spec: ModelSpec
    policy: str
    parameters: Mapping[str, Any]
    steps: int
    options: RunOptions = DEFAULTS
    position: int = 0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    prefill: Prefill | None = None

    @property
    def tokens(self) -> int:
        """Tokens of prompt and answer together."""
        return (self.prefill.tokens if self.prefill else self.position) + self.steps
