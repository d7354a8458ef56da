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

    def words(self, shape: Sequence[int]) -> Tensor:
        """Returns uniform elements of Z_2^64, int64."""
        count = math.prod(shape)
        if not count:
            return torch.zeros(tuple(shape), dtype=torch.int64)
        return torch.frombuffer(self.octets(8 * count), dtype=torch.int64).reshape(tuple(shape))

    def bytes(self, shape: Sequence[int]) -> Tensor:
        """Returns uniform bytes, uint8; the stream advances by whole words of 8 bytes."""
        count = math.prod(shape)
        if not count:
            return torch.zeros(tuple(shape), dtype=torch.uint8)
        octets = self.octets(-(-count // 8) * 8)[:count]
        return torch.frombuffer(octets, dtype=torch.uint8).reshape(tuple(shape))
