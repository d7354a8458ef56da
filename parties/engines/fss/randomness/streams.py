"""A party's keystream, expanded where the party computes; the bytes are the same everywhere."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from parties.engines.keystream import Keystream


class Stream(Protocol):
    """See `parties.engines.keystream.Keystream`."""

    def begin(self, epoch: int) -> None:
        """Starts the stream of an epoch at its first byte."""

    def draw(self, shape: Sequence[int], dtype: torch.dtype = ...) -> Tensor:
        """Returns the next elements, int64 or uint8, on the stream's device."""

    def words(self, shape: Sequence[int]) -> Tensor:
        """Returns the next words, int64, on the stream's device."""


def stream_on(device: torch.device, seed: bytes) -> Stream:
    """Returns the expansion of a seed on a device."""
    if device.type == "cpu":
        return Keystream(seed)
    from parties.engines.fss.kernels.keystream import DeviceKeystream  # Triton, which only a GPU needs

    return DeviceKeystream(seed, device)
