"""Sizes beyond which an engine would compute wrong results; a cell beyond them is rejected."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parties.models.spec import ModelSpec

LONGEST_ROW = {"fss": 1 << 17}
"""Most attention scores in a row, that is, tokens of prompt and answer together; other engines have no limit. In `fss`
the sums and the resolution of the softmax set it (`softmax.LADDERS`)."""

WIDEST_CENTRED = {"fss": 1 << 14}
"""Largest hidden size of a model with layer norms: `fss` multiplies sums by 1/d with 24 fraction bits
(`norm.to_norm`)."""

FEW_ROWS = 8
"""Most rows whose norm `fss` applies after a matrix product (`Engine.normalised_linear`): a round less, more bytes."""


@dataclass(frozen=True)
class Beyond:
    """A size beyond an engine's limit.

    Attributes:
        parameter: `tokens` or `hidden`.
        value: The size.
        most: The limit.
    """

    parameter: str
    value: int
    most: int

    def __str__(self) -> str:
        """Size and limit, in words."""
        if self.parameter == "tokens":
            return f"seq_len and new_tokens are {self.value:,} together, and it takes at most {self.most:,}"
        return f"the model has layer norms and a hidden size of {self.value:,}, and it takes at most {self.most:,}"


def beyond(engine: str, spec: "ModelSpec", tokens: int) -> Beyond | None:
    """The size of a cell that is beyond an engine's limit; None if there is none.

    Args:
        engine: Name of the engine.
        spec: The model.
        tokens: Tokens of prompt and answer together.
    """
    if tokens > (most := LONGEST_ROW.get(engine, tokens)):
        return Beyond("tokens", tokens, most)
    if spec.family == "gpt2" and spec.hidden > (most := WIDEST_CENTRED.get(engine, spec.hidden)):
        return Beyond("hidden", spec.hidden, most)
    return None
