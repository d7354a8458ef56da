"""The settings of a training, with their ranges."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from parties.errors import PartyError
from parties.heads.format import KINDS, Kind

WIDTHS = {"locret": 32, "attention_gate": 4}
RATES = {"locret": 3e-3, "attention_gate": 1e-2}


class TrainingError(PartyError):
    """Heads cannot be trained with these inputs; the message names the value and the allowed range."""

    status: ClassVar[str] = "config_error"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A training run without its texts.

    Attributes:
        kind: The policy whose heads are trained.
        width: Width of a `locret` head's hidden layer, or of each of a gate's attention heads.
        seed: Seed of the initial parameters, and of the choice and order of windows.
        windows: Number of windows of text to train with.
        context: Tokens of a window that the heads rate.
        answer: Tokens after them, whose attention is the training signal.
        block: Windows that the model runs before the heads are trained on them; a checkpoint follows each block.
        repeats: Number of passes over the windows of a block.
        learning_rate: Peak learning rate, after a linear warm-up over a tenth of the steps and before a linear decay
            to zero.
        clip: Largest norm of a gradient.
        smoothness: Weight of Locret's loss on neighbouring scores; 0.0025 in the paper.
        keep: Target share of the context that the gates pass.
        pressure: Weight of the gate's loss on that share.

    Raises:
        TrainingError: A value is outside its range; the message names it.
    """

    kind: Kind
    width: int
    learning_rate: float
    seed: int = 0
    windows: int = 300
    context: int = 512
    answer: int = 128
    block: int = 12
    repeats: int = 2
    clip: float = 0.5
    smoothness: float = 0.0025
    keep: float = 0.25
    pressure: float = 1.0

    def __post_init__(self) -> None:
        _check(self.kind in KINDS, "kind", self.kind, f"one of {', '.join(KINDS)}")
        for name, least in {"width": 1, "windows": 1, "context": 2, "answer": 2, "block": 1, "repeats": 1}.items():
            value = getattr(self, name)
            _check(type(value) is int and least <= value <= 999_999, name, value, f"a whole number from {least}")
        _check(
            type(self.seed) is int and 0 <= self.seed < 2**63, "seed", self.seed, "a whole number from 0 to 2^63 - 1"
        )
        for name in ("learning_rate", "clip"):
            _check(0 < getattr(self, name) < math.inf, name, getattr(self, name), "a positive number")
        for name in ("smoothness", "pressure"):
            _check(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "a number from 0")
        _check(0 < self.keep < 1, "keep", self.keep, "a share between 0 and 1")

    @property
    def length(self) -> int:
        """Tokens of a window."""
        return self.context + self.answer

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return math.ceil(self.windows / self.block)

    @property
    def steps(self) -> int:
        """Steps of the optimiser in all; each sees one window."""
        return self.windows * self.repeats

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, kind: Kind, *, width: int | None = None, learning_rate: float | None = None, **others: Any) -> Self:
        """Settings of a kind, with its default width and learning rate where they are None.

        Raises:
            TrainingError: A value is outside its range.
        """
        _check(kind in KINDS, "kind", kind, f"one of {', '.join(KINDS)}")
        return cls(
            kind=kind,
            width=WIDTHS[kind] if width is None else width,
            learning_rate=RATES[kind] if learning_rate is None else learning_rate,
            **others,
        )


def _check(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise TrainingError(f"{name}: {value!r} is not possible; it must be {allowed}")
