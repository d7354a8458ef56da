"""Loops that numpy and torch have no function for, compiled by Numba; see `compiled`.

None of them branches on a secret or reads memory at a secret index.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from parties.engines.fss.kernels.compiled import compiled

Integers = NDArray[np.int64]
Words = NDArray[np.uint64]
Octets = NDArray[np.uint8]

PAIRED_ROWS = 8
"""Rows from which on it pays to sum products of pairs, which takes a sum for each column besides."""
_NEAR = 16  # columns that are multiplied together


@compiled("void(uint8[::1], uint8[::1])")
def pack_bits(bits: Octets, packed: Octets) -> None:
    """Packs bits, [n], highest first, into [ceil(n / 8)] bytes."""
    n = bits.shape[0]
    for i in range(n // 8):
        octet = np.uint8(0)
        for j in range(8):
            octet |= bits[8 * i + j] << (7 - j)
        packed[i] = octet
    if n % 8:
        octet = np.uint8(0)
        for j in range(n % 8):
            octet |= bits[n - n % 8 + j] << (7 - j)
        packed[n // 8] = octet


@compiled("void(uint8[::1], uint8[::1])")
def unpack_bits(packed: Octets, bits: Octets) -> None:
    """Unpacks the first bits, [n], of packed bytes."""
    n = bits.shape[0]
    for i in range(n // 8):
        for j in range(8):
            bits[8 * i + j] = (packed[i] >> (7 - j)) & 1
    for j in range(n % 8):
        bits[n - n % 8 + j] = (packed[n // 8] >> (7 - j)) & 1


@compiled("void(int64[::1], int64[::1], boolean[::1], int64, int64)")
def checked_shift(x: Integers, shifted: Integers, outside: NDArray[np.bool_], drop: int, edge: int) -> None:
    """Shifts [n] right by `drop` bits; sets a flag, [1], if an element is not in -edge .. edge - 1."""
    found = False
    for i in range(x.shape[0]):
        found |= (x[i] < -edge) | (x[i] >= edge)
        shifted[i] = x[i] >> drop
    outside[0] |= found


@compiled("void(int64[::1], int64[:, ::1], int64[::1], int64, int64)")
def _products_of_row(row: Integers, columns: Integers, product: Integers, start: int, stop: int) -> None:
    """Multiplies a row by columns start .. stop - 1, at four places at a time: memory is read faster so."""
    quarter = (stop - start) // 4
    for j in range(start, start + quarter):
        first, second = columns[j], columns[j + quarter]
        third, fourth = columns[j + 2 * quarter], columns[j + 3 * quarter]
        one = two = three = four = np.int64(0)
        for k in range(row.shape[0]):
            factor = row[k]
            one += factor * first[k]
            two += factor * second[k]
            three += factor * third[k]
            four += factor * fourth[k]
        product[j], product[j + quarter] = one, two
        product[j + 2 * quarter], product[j + 3 * quarter] = three, four
    for j in range(start + 4 * quarter, stop):
        total = np.int64(0)
        for k in range(row.shape[0]):
            total += row[k] * columns[j, k]
        product[j] = total


@compiled("int64(int64[::1])")
def _halves_product(row: Integers) -> Any:
    """Returns the product of both halves of a row, [k]; without its last number if k is odd."""
    half, total = row.shape[0] // 2, np.int64(0)
    for k in range(half):
        total += row[k] * row[k + half]
    return total


@compiled("void(int64[:, ::1], int64[:, ::1], int64[:, ::1], int64, int64)")
def _products_in_pairs(x: Integers, columns: Integers, product: Integers, start: int, stop: int) -> None:
    """Multiplies [n, k] by columns start .. stop - 1 of [m, k] into [n, m] with half as many multiplications.

    With a row and a column cut into halves, u and v, and f and g, its product is the sum of (u + g) (v + f), less the
    sums of u v and of f g, which are computed once for each row and column. (Winograd, A New Algorithm for Inner
    Product, IEEE Trans. Computers 1968.) Modulo 2^64 that is exact, and multiplications are what limits many rows. Some
    columns at a time stay in the nearest caches while all rows pass over them.
    """
    n, half = x.shape[0], x.shape[1] // 2
    fours, end, odd = n // 4 * 4, 2 * half, x.shape[1] - 1
    own, its = np.empty(n, dtype=np.int64), np.empty(_NEAR, dtype=np.int64)
    for i in range(n):
        own[i] = _halves_product(x[i])
    for block in range(start, stop, _NEAR):
        last = min(block + _NEAR, stop)
        for j in range(block, last):
            its[j - block] = _halves_product(columns[j])
        for i in range(0, fours, 4):
            u, v = x[i, :half], x[i, half:end]
            u2, v2 = x[i + 1, :half], x[i + 1, half:end]
            u3, v3 = x[i + 2, :half], x[i + 2, half:end]
            u4, v4 = x[i + 3, :half], x[i + 3, half:end]
            for j in range(block, last):
                front, back, less = columns[j, :half], columns[j, half:end], its[j - block]
                one, two, three, four = -less - own[i], -less - own[i + 1], -less - own[i + 2], -less - own[i + 3]
                for k in range(half):
                    f, g = front[k], back[k]
                    one += (u[k] + g) * (v[k] + f)
                    two += (u2[k] + g) * (v2[k] + f)
                    three += (u3[k] + g) * (v3[k] + f)
                    four += (u4[k] + g) * (v4[k] + f)
                product[i, j], product[i + 1, j], product[i + 2, j], product[i + 3, j] = one, two, three, four
        for i in range(fours, n):
            u, v = x[i, :half], x[i, half:end]
            for j in range(block, last):
                total = -its[j - block] - own[i]
                for k in range(half):
                    total += (u[k] + columns[j, k + half]) * (v[k] + columns[j, k])
                product[i, j] = total
        if odd == end:
            for i in range(n):
                for j in range(block, last):
                    product[i, j] += x[i, odd] * columns[j, odd]


@compiled("void(int64[:, :, ::1], int64[:, :, ::1], int64[:, :, ::1], int64, int64)")
def products_by_columns(x: Integers, columns: Integers, product: Integers, start: int, stop: int) -> None:
    """Multiplies [b, n, k] by columns start .. stop - 1 of [b, m, k] into [b, n, m]; each column is read once.

    Four rows at a time: many rows do not fit the nearest cache, and each number of a column is then loaded once for
    four products.
    """
    fours = x.shape[1] // 4 * 4
    for b in range(x.shape[0]):
        if x.shape[1] == 1:
            _products_of_row(x[b, 0], columns[b], product[b, 0], start, stop)
            continue
        if x.shape[1] >= PAIRED_ROWS:
            _products_in_pairs(x[b], columns[b], product[b], start, stop)
            continue
        for j in range(start, stop):
            column = columns[b, j]
            for i in range(0, fours, 4):
                first, second, third, fourth = x[b, i], x[b, i + 1], x[b, i + 2], x[b, i + 3]
                one = two = three = four = np.int64(0)
                for k in range(column.shape[0]):
                    factor = column[k]
                    one += factor * first[k]
                    two += factor * second[k]
                    three += factor * third[k]
                    four += factor * fourth[k]
                product[b, i, j], product[b, i + 1, j] = one, two
                product[b, i + 2, j], product[b, i + 3, j] = three, four
            for i in range(fours, x.shape[1]):
                total = np.int64(0)
                for k in range(column.shape[0]):
                    total += x[b, i, k] * column[k]
                product[b, i, j] = total


@compiled("void(int64[:, :, ::1], int64[:, :, ::1], int64[:, :, ::1])")
def products_by_rows(x: Integers, rows: Integers, product: Integers) -> None:
    """Adds the product of [b, n, k] and [b, k, m] to [b, n, m]; each row is read once."""
    for b in range(x.shape[0]):
        for k in range(rows.shape[1]):
            for i in range(x.shape[1]):
                factor = x[b, i, k]
                for j in range(rows.shape[2]):
                    product[b, i, j] += factor * rows[b, k, j]
