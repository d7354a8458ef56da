"""Matrix products in Z_2^64 on a GPU; torch has none for integer tensors on CUDA.

A product with one row reads the matrix once and is limited by memory bandwidth. With several rows 64-bit arithmetic
would limit it, so tensor cores do the work: they multiply the int8 digits of the numbers. Sums wrap around modulo 2^64
in any order, so the results equal those of the CPU.

Triton compiles a kernel anew for numbers that are 1 or a multiple of 16, and for pointers that are. Here it may do so
only where that makes reading faster: by the columns of a matrix, and by whether those of y lie next to each other.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from parties.engines.fss.kernels import loops

_ROWS, _COLUMNS = 8, 128
_TILE = 16
_FEW_ROWS = 4  # of x, up to which y is read once; 16 in each program would be more work than memory
_FEW_COLUMNS, _FEW_INNER = 8, 128
_LEAST_WIDTH, _MOST_WIDTH = 16, 64  # of the rows of x in a program; tensor cores take 16 at least
_ROWS_OF_DIGITS, _COLUMNS_OF_DIGITS = 64, 64
_BIAS = -0x7F7F7F7F7F7F7F80  # 0x80 in each byte


@triton.jit(do_not_specialize=["vector", "out", "rows"])  # type: ignore[untyped-decorator]
def _matrix_vector(matrix, vector, out, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Each program: ROWS rows of [rows, columns] times [columns]."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.int64)
    for start in range(0, columns, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        inside = (row[:, None] < rows) & (column[None, :] < columns)
        tile = tl.load(matrix + row[:, None].to(tl.int64) * columns + column[None, :], mask=inside, other=0)
        total += tile * tl.load(vector + column, mask=column < columns, other=0)[None, :]
    tl.store(out + row, tl.sum(total, axis=1), mask=row < rows)


@triton.jit  # type: ignore[untyped-decorator]
def _digit(biased, place: tl.constexpr):  # type: ignore[no-untyped-def]
    """Digit d_place of x = sum of d_j 256^j, -128 <= d_j < 128, modulo 2^64: a byte of (x + BIAS) ^ BIAS."""
    return (biased >> (8 * place)).to(tl.int8)


@triton.jit(do_not_specialize=["x", "out", "n", "rows"])  # type: ignore[untyped-decorator]
def _matrix_rows(  # type: ignore[no-untyped-def]
    x, matrix, out, n, rows, columns, N: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BIAS: tl.constexpr
):
    """Each program: N x ROWS results of [n, columns] times the transpose of [rows, columns].

    Of the products of digits, those of places i + j = s < 8 count, 256^s times. In a tile they sum up to less than
    8 COLUMNS 2^14, which fits 32 bits.
    """
    here = tl.program_id(0) * N + tl.arange(0, N)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros((N, ROWS), dtype=tl.int64)
    for start in range(0, columns, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        x_inside = (here[:, None] < n) & (column[None, :] < columns)
        left = tl.load(x + here[:, None].to(tl.int64) * columns + column[None, :], mask=x_inside, other=0)
        inside = (row[None, :] < rows) & (column[:, None] < columns)
        right = tl.load(matrix + row[None, :].to(tl.int64) * columns + column[:, None], mask=inside, other=0)
        left, right = (left + BIAS) ^ BIAS, (right + BIAS) ^ BIAS
        for place in tl.static_range(8):
            part = tl.zeros((N, ROWS), dtype=tl.int32)
            for i in tl.static_range(place + 1):
                part = tl.dot(_digit(left, i), _digit(right, place - i), part, out_dtype=tl.int32)
            total += part.to(tl.int64) << (8 * place)
    tl.store(
        out + here[:, None].to(tl.int64) * rows + row[None, :], total, mask=(here[:, None] < n) & (row[None, :] < rows)
    )


def vector_matrix(x: Tensor, transposed: Tensor, out: Tensor) -> None:
    """Multiplies [n, in] by the transpose of [out, in] into [n, out], int64, contiguous, on one GPU."""
    (n, columns), rows = x.shape, transposed.shape[0]
    if n == 1:
        _matrix_vector[(triton.cdiv(rows, _ROWS),)](transposed, x, out, rows, columns, _ROWS, _COLUMNS)
    elif n:
        width = min(_MOST_WIDTH, max(_LEAST_WIDTH, triton.next_power_of_2(n)))
        grid = (triton.cdiv(n, width), triton.cdiv(rows, _ROWS_OF_DIGITS))
        _matrix_rows[grid](x, transposed, out, n, rows, columns, width, _ROWS_OF_DIGITS, _COLUMNS_OF_DIGITS, _BIAS)


def vector_matrix_from_host(x: loops.Integers, transposed: Tensor, out: loops.Integers) -> None:
    """Does the same for x and a result in memory of the host."""
    there = torch.from_numpy(x).to(transposed.device)
    product = torch.empty(out.shape, dtype=torch.int64, device=transposed.device)
    vector_matrix(there, transposed, product)
    torch.from_numpy(out).copy_(product)


@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=["x", "y", "out", "n", "inner", "m", "x_batch", "x_row", "x_column", "y_batch", "y_row"],
    do_not_specialize_on_alignment=["y_column"],
)
def _tiles(  # type: ignore[no-untyped-def]
    x, y, out, n, inner, m, x_batch, x_row, x_column, y_batch, y_row, y_column, TILE: tl.constexpr
):
    """Each program: TILE x TILE results of [n, inner] times [inner, m], with any strides."""
    batch = tl.program_id(2).to(tl.int64)
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)
    column = tl.program_id(1) * TILE + tl.arange(0, TILE)
    total = tl.zeros((TILE, TILE), dtype=tl.int64)
    for start in range(0, inner, TILE):
        middle = start + tl.arange(0, TILE)
        x_at = x + batch * x_batch + row[:, None].to(tl.int64) * x_row + middle[None, :] * x_column
        left = tl.load(x_at, mask=(row[:, None] < n) & (middle[None, :] < inner), other=0)
        y_at = y + batch * y_batch + column[:, None].to(tl.int64) * y_column + middle[None, :] * y_row
        right = tl.load(y_at, mask=(column[:, None] < m) & (middle[None, :] < inner), other=0)
        total += tl.sum(left[:, None, :] * right[None, :, :], axis=2)
    place = (batch * n + row[:, None]) * m + column[None, :]
    tl.store(out + place, total, mask=(row[:, None] < n) & (column[None, :] < m))


@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=["x", "y", "out", "n", "inner", "m", "x_batch", "x_row", "x_column", "y_batch", "y_row"],
    do_not_specialize_on_alignment=["y_column"],
)
def _few_rows(  # type: ignore[no-untyped-def]
    x, y, out, n, inner, m, x_batch, x_row, x_column, y_batch, y_row, y_column,
    N: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """Each program: N x COLUMNS results of [n, inner] times [inner, m], with any strides; y is read once."""
    batch = tl.program_id(1).to(tl.int64)
    row, column = tl.arange(0, N), tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((N, COLUMNS, INNER), dtype=tl.int64)
    for start in range(0, inner, INNER):
        middle = start + tl.arange(0, INNER)
        x_at = x + batch * x_batch + row[:, None].to(tl.int64) * x_row + middle[None, :] * x_column
        left = tl.load(x_at, mask=(row[:, None] < n) & (middle[None, :] < inner), other=0)
        y_at = y + batch * y_batch + column[:, None].to(tl.int64) * y_column + middle[None, :] * y_row
        right = tl.load(y_at, mask=(column[:, None] < m) & (middle[None, :] < inner), other=0)
        total += left[:, None, :] * right[None, :, :]
    place = (batch * n + row[:, None]) * m + column[None, :]
    tl.store(out + place, tl.sum(total, axis=2), mask=(row[:, None] < n) & (column[None, :] < m))


def matmul(x: Tensor, y: Tensor, out: Tensor) -> None:
    """Multiplies [b, n, k] by [b, k, m] with any strides into [b, n, m], int64, contiguous, on one GPU."""
    (count, n, inner), m = x.shape, y.shape[2]
    if not out.numel():
        return
    arguments = (x, y, out, n, inner, m, *x.stride(), *y.stride())
    if n <= _FEW_ROWS:
        width = triton.next_power_of_2(n)
        _few_rows[(triton.cdiv(m, _FEW_COLUMNS), count)](*arguments, width, _FEW_COLUMNS, _FEW_INNER, num_warps=2)
    else:
        _tiles[(triton.cdiv(n, _TILE), triton.cdiv(m, _TILE), count)](*arguments, _TILE)
