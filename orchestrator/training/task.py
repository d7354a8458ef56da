"""The parts of a training that depend on the kind of heads."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from orchestrator.training.backbone import Backbone
from orchestrator.training.settings import Settings
from parties.heads.format import Head, Kind

Parameters = dict[str, Tensor]
"""By the part of the name after `layers.<l>.` in a file of heads, all layers stacked."""

Observed = dict[str, Tensor]
"""The tensors of a window that training needs, all layers stacked; real numbers in half precision."""


class Task(ABC):
    """Heads of one kind for one model.

    Attributes:
        kind: The policy that uses them.
        objective: Names of the parts of the loss, in order.
    """

    kind: ClassVar[Kind]
    objective: ClassVar[tuple[str, ...]]

    def __init__(self, backbone: Backbone, settings: Settings) -> None:
        self.backbone, self.settings = backbone, settings

    @abstractmethod
    def observe(self, window: list[int]) -> Observed:
        """Runs a window through the frozen model and returns the tensors that the loss needs."""

    @abstractmethod
    def loss(self, parameters: Mapping[str, Tensor], seen: Observed) -> dict[str, Tensor]:
        """The parts of the loss by name; training minimises their sum."""

    def start(self) -> Parameters:
        """Initial parameters: normally distributed, with biases of zero."""
        generator = torch.Generator().manual_seed(self.settings.seed)
        stacked: dict[str, list[Tensor]] = {}
        for name, shape in self._empty().shapes(self.backbone.spec).items():
            _, layer, part = name.split(".", 2)
            size = 0.0 if part.endswith("bias") else shape[0] ** -0.5 * self.size(int(layer), part)
            stacked.setdefault(part, []).append(torch.randn(shape, generator=generator) * size)
        return {name: torch.stack(tensors).to(self.backbone.device) for name, tensors in stacked.items()}

    def size(self, layer: int, part: str) -> float:  # noqa: ARG002 - one size fits most heads
        """Initial size of a layer's products with a part, relative to its operands."""
        return 1.0

    def head(self, parameters: Mapping[str, Tensor]) -> Head:
        """The heads in the format of a file: float16, whose range holds every trained number."""
        empty = self._empty()
        tensors = {
            f"layers.{layer}.{name}": tensor.detach().half().cpu()
            for name, stacked in parameters.items()
            for layer, tensor in enumerate(stacked)
        }
        return Head(empty.kind, empty.model, empty.fingerprint, empty.width, tensors)

    def _empty(self) -> Head:
        return Head(self.kind, self.backbone.model, self.backbone.fingerprint, self.settings.width, {})
