"""What a recorded segment reads from a cache, and the tensors that its tapes read in its place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from parties.decoding.cache import LayerCache
from parties.engines.fss.arithmetic.values import Number
from parties.engines.fss.replay.values import tensors_of, values_in

Moves = list[tuple[Tensor, Tensor]]
"""Pairs of a place and a tensor that is to be copied there."""


@dataclass
class Reading:
    """Values that a layer holds.

    Attributes:
        layer: The layer.
        name: The name of what it holds.
        values: The values that the tapes read, by their number in what it holds.
    """

    layer: int
    name: str
    values: Mapping[int, Number]
    _found: Any = field(default=None, init=False)
    _moves: Moves = field(default_factory=list, init=False)

    def moves(self, layers: Sequence[LayerCache]) -> Moves | None:
        """Returns what to copy from the layers of a cache; None if they hold values of other shapes."""
        found = getattr(layers[self.layer], self.name)
        if found is not self._found or self.name != "rows":  # only rows cannot change without being another object
            values = values_in(found)
            if any(n >= len(values) or values[n].shape != static.shape for n, static in self.values.items()):
                return None
            pairs = [
                pair
                for n, static in self.values.items()
                for pair in zip(tensors_of(static), tensors_of(values[n]), strict=True)
            ]
            self._found, self._moves = found, [(here, there) for here, there in pairs if here is not there]
        return self._moves
