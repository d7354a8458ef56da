"""The work of an engine in a cell: public values from which all programs of the cell follow."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from parties.models.spec import ModelSpec
from parties.options import DEFAULTS, RunOptions

CHUNK_BYTES = 1 << 28
"""Most memory for the values of one chunk in one step of a layer."""


@dataclass(frozen=True)
class Prefill:
    """Public sizes of a prompt that client and server run themselves.

    Each layer processes the prompt in chunks; the queries of a chunk attend to all tokens up to the end of the chunk.
    Smaller chunks need less memory and more rounds; the result is the same up to rounding.

    Attributes:
        tokens: Tokens of the prompt.
        chunk: Tokens of a chunk; the last chunk may have fewer.
    """

    tokens: int
    chunk: int


@dataclass(frozen=True)
class Workload:
    """A model, a policy, a prompt or a prefilled cache, and the number of tokens to decode.

    Attributes:
        spec: The model.
        policy: Name of the policy.
        parameters: All parameters of the policy.
        steps: Tokens to decode.
        options: The cell's engine options.
        position: Position of the next token; 0 if the prompt is run.
        shapes: Shapes of the values of the prefilled cache, by name; empty if the prompt is run.
        prefill: Sizes of the prompt to run; None if the cache is prefilled.
        drafts: Draft tokens that each pass verifies; 0 if tokens are decoded one by one.
    """

    spec: ModelSpec
    policy: str
    parameters: Mapping[str, Any]
    steps: int
    options: RunOptions = DEFAULTS
    position: int = 0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    prefill: Prefill | None = None
    drafts: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of prompt and answer together, with those of a draft that may be wrong."""
        return self.end + self.drafts

    @property
    def end(self) -> int:
        """Position after the last token that is decoded."""
        return (self.prefill.tokens if self.prefill else self.position) + self.steps
