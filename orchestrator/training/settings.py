"""How heads are trained: every number of a training run, checked."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from parties.errors import PartyError
from parties.heads.format import KINDS, Kind

WIDTHS = {"locret": 32, "attention_gate": 4}
RATES = {"locret": 3e-3, "attention_gate": 1e-2}


class TrainingError(PartyError):
    """Heads cannot be trained as asked; the message names what is wrong and what is allowed."""

    status: ClassVar[str] = "config_error"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A training run without its texts.

    Attributes:
        kind: The policy whose heads are trained.
        width: Of a `locret` head's hidden layer, or of each of a gate's attention heads.
        seed: Of the first parameters, of which windows of the texts are drawn, and of their order.
        windows: Number of windows of text to train with.
        context: Tokens of a window that the heads rate.
        answer: Tokens after them, which say what should have stayed.
        block: Windows that go through the model at once before they are trained with; a checkpoint follows each block.
        repeats: How often each window of a block is trained with.
        learning_rate: Largest of a linear warm-up over a tenth of the steps and a linear descent to nothing.
        clip: Largest norm of a gradient.
        smoothness: Weight of Locret's loss on neighbours; 0.0025 in the paper.
        keep: Share of the context that the gates are to let through.
        pressure: Weight of the gate's loss on that share.

    Raises:
        TrainingError: A value is impossible; the message names it.
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
        """How often windows go through the model before they are trained with."""
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
        """Settings of a kind, with its usual width and learning rate where they are left out.

        Raises:
            TrainingError: A value is impossible.
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
