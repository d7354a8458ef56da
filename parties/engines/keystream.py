"""Pseudo-random ring elements that two parties expand from a shared seed: AES-256 in counter mode."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

SEED_BYTES = 32
_ZEROS = memoryview(bytes(1 << 20))
_BLOCK_BYTES = 16


class Keystream:
    """One seed with an independent stream per epoch.

    Args:
        seed: 32 bytes that only its owners know.
    """

    def __init__(self, seed: bytes) -> None:
        self._key = algorithms.AES(seed)
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Starts the stream of `epoch`, 0 to 2^64 - 1, at its first byte; each epoch has its own 2^64 blocks."""
        self._cipher = Cipher(self._key, modes.CTR(epoch.to_bytes(8, "big") + bytes(8))).encryptor()

    def octets(self, count: int) -> memoryview:
        """Returns the next `count` bytes; the buffer belongs to the caller."""
        buffer = np.empty(count + _BLOCK_BYTES - 1, dtype=np.uint8).data  # the cipher requires the additional bytes
        for start in range(0, count, len(_ZEROS)):
            self._cipher.update_into(_ZEROS[: count - start], buffer[start:])
        return buffer[:count]

    def draw(self, shape: Sequence[int], dtype: torch.dtype = torch.int64) -> Tensor:
        """Returns uniform elements of Z_2^64, int64, or uniform bytes, uint8; the stream advances by whole words."""
        count = math.prod(shape)
        if not count:
            return torch.zeros(tuple(shape), dtype=dtype)
        size = count * dtype.itemsize
        return torch.frombuffer(self.octets(-(-size // 8) * 8)[:size], dtype=dtype).reshape(tuple(shape))

    def words(self, shape: Sequence[int]) -> Tensor:
        """Returns uniform elements of Z_2^64, int64."""
        return self.draw(shape)

    def fill(self, octets: Tensor) -> None:
        """Fills a tensor of whole words, uint8, with the next bytes."""
        octets.numpy()[:] = np.frombuffer(self.octets(octets.numel()), np.uint8)
