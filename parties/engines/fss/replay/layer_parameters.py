"""Memory for the parameters of one layer, where recordings read those of the layer that is run."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from parties.engines.fss.recording.memory import Buffer
from parties.engines.fss.recording.tape import octets_of
from parties.engines.fss.recording.trace import Trace
from parties.engines.fss.recording.tracer import NotRecordable

Weights = Mapping[str, Sequence[Tensor]]
"""Tensors of the installed parameters, by name."""
Place = tuple[str, int]
"""A parameter's name within its layer, and the number of one of its tensors."""


class LayerParameters:
    """Copies of the parameters that recordings read, all of the same layer at a time.

    Args:
        weights: Returns the tensors of the installed parameters.
    """

    def __init__(self, weights: Callable[[], Weights]) -> None:
        self._weights = weights
        self._copies: dict[Place, torch.UntypedStorage] = {}
        self._shown: dict[Place, int] = {}

    def clear(self) -> None:
        """Frees the memory."""
        self._copies.clear()
        self._shown.clear()

    def moved(self, trace: Trace, layer: int) -> dict[Buffer, torch.UntypedStorage]:
        """Returns where a trace of a layer is to find the layer's parameters instead.

        Raises:
            NotRecordable: It reads those of another layer.
        """
        weights = self._weights()
        own = {_address(tensor): place for place, tensor in _of_layer(weights, layer).items()}
        every = {_address(t) for name, tensors in weights.items() if name.startswith("layers.") for t in tensors}
        moved: dict[Buffer, torch.UntypedStorage] = {}
        for buffer in trace.externals:
            if buffer.size and buffer.fixed in own:
                moved[buffer] = self._copy(own[buffer.fixed], buffer.memory)
            elif buffer.size and buffer.fixed in every:
                raise NotRecordable("a chunk", "it reads the parameters of another layer")
        return moved

    def show(self, layer: int) -> None:
        """Copies the parameters of a layer to where recordings read them, unless they are there."""
        found = _of_layer(self._weights(), layer)
        for place, copy in self._copies.items():
            storage = found[place].untyped_storage()
            if self._shown.get(place) != storage.data_ptr():
                octets_of(copy).copy_(octets_of(storage))
                self._shown[place] = storage.data_ptr()

    def layout(self, layer: int) -> Any:
        """How a layer's parameters lie in memory, which those of layers alike have in common."""
        return {
            place: (t.dtype, t.shape, t.stride(), t.storage_offset(), t.untyped_storage().nbytes())
            for place, t in _of_layer(self._weights(), layer).items()
        }

    def _copy(self, place: Place, storage: torch.UntypedStorage) -> torch.UntypedStorage:
        if place not in self._copies:
            self._copies[place] = octets_of(storage).clone().untyped_storage()
            self._shown[place] = storage.data_ptr()
        return self._copies[place]


def _of_layer(weights: Weights, layer: int) -> dict[Place, Tensor]:
    start = f"layers.{layer}."
    return {
        (name.removeprefix(start), number): tensor
        for name, tensors in weights.items()
        if name.startswith(start)
        for number, tensor in enumerate(tensors)
    }


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
