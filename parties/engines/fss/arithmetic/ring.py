"""The ring Z_2^64 as int64 tensors, and fixed-point numbers in it."""

import math

import torch
from torch import Tensor

from parties.engines.fss.kernels.call import call

FRACTION_BITS = 16
SCALE = 2.0**FRACTION_BITS


def encode(numbers: Tensor, bits: int = FRACTION_BITS) -> Tensor:
    """Rounds real numbers to the nearest multiple of 2^-bits and returns them as integers, int64."""
    return (numbers.double() * 2.0**bits).round().long()


def shortest(number: float) -> tuple[int, int]:
    """Encodes a number as `encode` does, with the fewest fraction bits that represent it: integer, fraction bits."""
    integer, bits = round(number * SCALE), FRACTION_BITS
    while bits and not integer % 2:
        integer, bits = integer // 2, bits - 1
    return integer, bits


def decode(integers: Tensor, bits: int = FRACTION_BITS) -> Tensor:
    """Returns the real numbers that integers encode, float64."""
    return integers.double() / 2.0**bits


def magnitude_bits(limit: float, scale: int) -> int:
    """Returns the least k with |x| * 2^scale < 2^k for all |x| < limit."""
    return max(1, math.ceil(math.log2(limit)) + scale)


def low_bits(x: Tensor, start: int, width: int) -> Tensor:
    """Returns bits start .. start + width - 1 of each element, as a number from 0 to 2^width - 1."""
    return (x >> start) & ((1 << width) - 1) if width < 64 else x >> start


def checked_shift(x: Tensor, drop: int, edge: int, outside: Tensor) -> Tensor:
    """Returns x >> drop, and checks the range of x in the same pass.

    Args:
        x: Integers of any shape.
        drop: Bits to drop, 0 to 63.
        edge: Bound.
        outside: A flag, bool, [1]; set if an element is not in -edge .. edge - 1, and left as it is otherwise.
    """
    from parties.engines.fss.kernels import device_shifts, loops  # Numba, which counting does not need

    shifted = torch.empty(x.shape, dtype=torch.int64, device=x.device)
    shift = device_shifts.checked_shift if x.is_cuda else loops.checked_shift
    call(shift, x.contiguous().view(-1), shifted.view(-1), outside, drop, edge)
    return shifted


def vector_matrix(x: Tensor, transposed: Tensor) -> Tensor:
    """Multiplies [n, in] by the transpose of a contiguous [out, in]; a single row runs at memory bandwidth.

    On a CPU it uses the threads that torch may use.

    The product is computed on the matrix's device and returned on the device of x.

    Raises:
        ValueError: The inner dimensions differ.
    """
    _check_inner(x.shape[1], transposed.shape[1])
    if transposed.is_cuda:
        from parties.engines.fss.kernels import matrix_products  # Triton, which only a GPU needs

        product = torch.empty(x.shape[0], transposed.shape[0], dtype=torch.int64, device=x.device)
        multiply = matrix_products.vector_matrix if x.is_cuda else matrix_products.vector_matrix_from_host
        call(multiply, x.contiguous(), transposed, product)
        return product
    product = torch.empty(1, x.shape[0], transposed.shape[0], dtype=torch.int64)
    _multiply_columns(x.contiguous()[None], transposed[None], product)
    return product[0]


def matmul(x: Tensor, y: Tensor) -> Tensor:
    """Multiplies integer matrices, [b, n, k] @ [b, k, m], on their device; a batch of one is broadcast.

    Raises:
        ValueError: The inner dimensions differ.
    """
    _check_inner(x.shape[2], y.shape[1])
    if x.is_meta:
        return torch.matmul(x, y)  # counting needs the shape only
    if len(x) != len(y):
        batch = len(y) if len(x) == 1 else len(x)
        x, y = x.expand(batch, -1, -1), y.expand(batch, -1, -1)
    if x.is_cuda:
        from parties.engines.fss.kernels import matrix_products  # Triton, which only a GPU needs

        product = torch.empty(*x.shape[:2], y.shape[2], dtype=torch.int64, device=x.device)
        call(matrix_products.matmul, x, y, product)
        return product
    columns = y.transpose(1, 2)
    if columns.is_contiguous():
        product = torch.empty(*x.shape[:2], y.shape[2], dtype=torch.int64)
        _multiply_columns(x.contiguous(), columns, product)
    else:
        product = torch.zeros(*x.shape[:2], y.shape[2], dtype=torch.int64)
        _multiply_rows(x.contiguous(), y.contiguous(), product)
    return product


def _multiply_rows(x: Tensor, rows: Tensor, product: Tensor) -> None:
    """Multiplies by threads as `_multiply_columns` does."""
    from parties.engines.fss.kernels import loops, threads  # Numba, which only the CPU's products need

    count = threads.worthwhile(len(x), rows.numel(), torch.get_num_threads())
    if count == 1:
        call(loops.products_by_rows, x, rows, product)
    else:
        call(threads.products_by_rows, x, rows, product, count)


def _multiply_columns(x: Tensor, columns: Tensor, product: Tensor) -> None:
    """Multiplies by the threads that torch may use, as far as they are worth it."""
    from parties.engines.fss.kernels import loops, threads  # Numba, which only the CPU's products need

    count = threads.worthwhile(columns.shape[1], columns.numel(), torch.get_num_threads())
    if count == 1:
        call(loops.products_by_columns, x, columns, product, 0, columns.shape[1])
    else:
        call(threads.products_by_columns, x, columns, product, count)


def _check_inner(first: int, second: int) -> None:
    if first != second:  # the compiled loops do not check it
        raise ValueError(f"inner dimensions of {first} and {second} elements; they must be equal")
