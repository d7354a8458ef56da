"""Uniform ring elements from a cryptographic generator."""

import os

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

_BYTES_PER_ELEMENT = 8


def uniform(*shape: int) -> torch.Tensor:
    """Independent uniform elements of Z_2^64, int64, from AES-256 in counter mode under a fresh key from the system.

    Args:
        shape: Shape of the tensor.
    """
    count = 1
    for length in shape:
        count *= length
    stream = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(bytes(16))).encryptor()
    data = bytearray(stream.update(bytes(count * _BYTES_PER_ELEMENT)))
    return torch.frombuffer(data, dtype=torch.int64).reshape(shape) if count else torch.zeros(shape, dtype=torch.int64)


def seed() -> int:
    """A fresh signed 64-bit seed from the system."""
    return int.from_bytes(os.urandom(8), "little", signed=True)


def fill_uniform(words: NDArray[np.int64]) -> None:
    """Fills an array with what `uniform` returns."""
    words[...] = uniform(*words.shape).numpy()
