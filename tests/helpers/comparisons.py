"""Inputs of comparison keys."""

import numpy as np
import torch
from torch import Tensor


def numbers(width: int, *shape: int, seed: int = 0) -> Tensor:
    """Draws numbers from 0 to 2^width - 1, width 1 to 63."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 2**width, shape, dtype=np.int64))


def seeds(count: int) -> list[Tensor]:
    """Draws the client's and the server's seeds of so many keys."""
    generator = np.random.default_rng(count)
    return [torch.from_numpy(generator.integers(0, 256, (count, 16), dtype=np.uint8)) for _ in range(2)]
