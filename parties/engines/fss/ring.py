"""The ring Z_2^64 as int64 tensors, and fixed-point numbers in it."""

import math

import torch
from torch import Tensor

FRACTION_BITS = 16
SCALE = 2.0**FRACTION_BITS


def encode(numbers: Tensor, bits: int = FRACTION_BITS) -> Tensor:
    """Real numbers to the nearest multiple of 2^-bits, as integers."""
    return (numbers.double() * 2.0**bits).round().long()


def decode(integers: Tensor, bits: int = FRACTION_BITS) -> Tensor:
    """The real numbers, float64."""
    return integers.double() / 2.0**bits


def magnitude_bits(limit: float, scale: int) -> int:
    """The least k with |x| * 2^scale < 2^k for all |x| < limit."""
    return max(1, math.ceil(math.log2(limit)) + scale)


def low_bits(x: Tensor, start: int, width: int) -> Tensor:
    """Bits start .. start + width - 1 of each element, as a number from 0 to 2^width - 1."""
    return (x >> start) & ((1 << width) - 1) if width < 64 else x >> start


def vector_matrix(x: Tensor, transposed: Tensor) -> Tensor:
    """[n, in] times the transpose of a contiguous [out, in]: for one row it runs at the speed of memory.

    It is computed where the matrix is, and comes back to where x is.
    """
    if transposed.is_cuda:
        from parties.engines.fss.kernels import products  # Triton, which only a GPU needs

        return products.vector_matrix(x.to(transposed.device).contiguous(), transposed).to(x.device)
    from parties.engines.fss import loops  # Numba, which only the CPU's products need

    product = torch.empty(x.shape[0], transposed.shape[0], dtype=torch.int64)
    loops.matrix_product(x.contiguous().numpy(), transposed.numpy(), product.numpy())
    return product


def matmul(x: Tensor, y: Tensor) -> Tensor:
    """Batched product of integer matrices, where they are."""
    if x.is_cuda:
        from parties.engines.fss.kernels import products  # Triton, which only a GPU needs

        return products.matmul(x, y)
    return torch.matmul(x, y)
