"""Sizes beyond which an engine would compute wrong results; a cell beyond them is rejected."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parties.models.spec import ModelSpec

LONGEST_ROW = {"fss": 1 << 17}
"""Most attention scores in a row, that is, tokens of prompt and answer together; other engines have no limit. In `fss`
the sums and the resolution of the softmax set it (`ladders.LADDERS`)."""

WIDEST_CENTRED = {"fss": 1 << 14}
"""Largest hidden size of a model with layer norms: `fss` multiplies sums by 1/d with 24 fraction bits
(`norm.to_norm`)."""

LEAST_CAP = {"fss": 4.0, "crypten": 4.0}
"""Smallest cap of attention scores: their tanh is tabulated in cells of 1/4 (`fss`), or its approximation has a range
of 250 times the cap (`crypten`)."""

MOST_SEQUENCES = 1024
"""Most sequences that decode side by side; engines are slower per sequence long before that."""

FEW_ROWS = 16
"""Most rows whose norm `fss` applies after a matrix product (`Engine.normalised_linear`): a round less, and a second
opening of the product. With the shapes of SmolLM2-135M, 16 rows open 0.5 MB more in a layer and save two rounds: 10 ms
against 40 ms on the preset `wan`, 1.4 ms against 0.8 ms on `lan`."""


@dataclass(frozen=True)
class Beyond:
    """A size beyond an engine's limit.

    Attributes:
        parameter: `tokens`, `hidden` or `score_cap`.
        value: The size.
        most: The limit; for a cap the least one.
    """

    parameter: str
    value: float
    most: float

    def __str__(self) -> str:
        """Size and limit, in words."""
        if self.parameter == "score_cap":
            return f"the model caps attention scores at {self.value:g}, and it takes caps of {self.most:g} or more"
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
    if spec.architecture.norm == "layer" and spec.hidden > (most := WIDEST_CENTRED.get(engine, spec.hidden)):
        return Beyond("hidden", spec.hidden, most)
    if 0 < spec.score_cap < (least := LEAST_CAP.get(engine, 0.0)):
        return Beyond("score_cap", spec.score_cap, least)
    return None
