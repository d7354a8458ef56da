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
class Start:
    """Where a sequence begins: with a prefilled cache, or with a prompt to run.

    Attributes:
        position: Position of the next token; 0 if the prompt is run.
        shapes: Shapes of the values of the prefilled cache, by name; empty if the prompt is run.
        prefill: Sizes of the prompt to run; None if the cache is prefilled.
    """

    position: int = 0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    prefill: Prefill | None = None

    @property
    def tokens(self) -> int:
        """Tokens of the prompt."""
        return self.prefill.tokens if self.prefill else self.position


@dataclass(frozen=True)
class Workload:
    """A model, a policy, sequences with a prompt or a prefilled cache, and the number of tokens to decode.

    Attributes:
        spec: The model.
        policy: Name of the policy.
        parameters: All parameters of the policy.
        steps: Tokens to decode, of each sequence.
        options: The cell's engine options.
        sequences: The sequences that decode side by side; each runs its prompt, or none does.
        drafts: Draft tokens that each pass verifies; 0 if tokens are decoded one by one.
    """

    spec: ModelSpec
    policy: str
    parameters: Mapping[str, Any]
    steps: int
    options: RunOptions = DEFAULTS
    sequences: tuple[Start, ...] = (Start(),)
    drafts: int = 0

    @property
    def runs_prompts(self) -> bool:
        """Whether client and server run the prompts."""
        return self.sequences[0].prefill is not None

    @property
    def tokens(self) -> int:
        """Tokens of prompt and answer together, of the longest sequence, with those of a draft that may be wrong."""
        return max(start.tokens for start in self.sequences) + self.steps + self.drafts

    @property
    def end(self) -> int:
        """Position of the first sequence after its last token is decoded."""
        return self.sequences[0].tokens + self.steps
