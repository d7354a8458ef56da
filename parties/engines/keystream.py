"""Pseudo-random ring elements that two parties expand from a shared seed: AES-256 in counter mode."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

SEED_BYTES = 32
_ZEROS = memoryview(bytes(1 << 20))
_FIRST = bytes(8)
SPARE_BYTES = 16
"""Room after the bytes that are written, which the cipher requires."""


class Keystream:
    """One seed with an independent stream per epoch.

    Args:
        seed: 32 bytes that only its owners know.
    """

    def __init__(self, seed: bytes) -> None:
        self._key = algorithms.AES(seed)
        self._cipher = Cipher(self._key, modes.CTR(bytes(16))).encryptor()

    def begin(self, epoch: int) -> None:
        """Starts the stream of `epoch`, 0 to 2^64 - 1, at its first byte; each epoch has its own 2^64 blocks."""
        self._cipher.reset_nonce(epoch.to_bytes(8, "big") + _FIRST)

    def octets(self, count: int) -> memoryview:
        """Returns the next `count` bytes; the buffer belongs to the caller."""
        buffer = np.empty(count + SPARE_BYTES, dtype=np.uint8).data
        self.fill(buffer, count)
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

    def fill(self, buffer: memoryview, count: int) -> None:
        """Writes the next `count` bytes, whole words, to the start of a buffer with room for SPARE_BYTES more."""
        for start in range(0, count, len(_ZEROS)):
            self._cipher.update_into(_ZEROS[: count - start], buffer[start:])
