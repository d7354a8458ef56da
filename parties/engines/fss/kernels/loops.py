"""Loops that numpy and torch have no function for, compiled by Numba on first use and cached next to this file.

None of them branches on a secret or reads memory at a secret index.
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Words = NDArray[np.uint64]
Octets = NDArray[np.uint8]
F = TypeVar("F", bound=Callable[..., None])


def _compiled(signature: str) -> Callable[[F], F]:
    """Compiles a function; caches the code if a folder for it can be written, and compiles in each process otherwise.

    Numba caches next to this file, or in the user's home; without a home it would create a folder named `~`.
    """

    def compiled(function: F) -> F:
        try:
            return cast("F", numba.njit(signature, cache=os.path.expanduser("~") != "~")(function))  # noqa: PTH111
        except RuntimeError:  # neither folder can be written
            return cast("F", numba.njit(signature)(function))

    return compiled


@_compiled("void(int64[:, :, ::1], uint8[:, ::1], int64[::1], int64[:, ::1])")
def table_sums(mirrored: Integers, bits: NDArray[np.uint8], turn: Integers, sums: Integers) -> None:
    """Sums bit j of element i times T[turn[i] - j] over j, for each table T.

    Args:
        mirrored: T[length - 1 - j], repeated: [tables, rows, 2 length]; element i uses row i mod rows.
        bits: Packed bits, [n, length / 8].
        turn: Rotations, [n], 0 to length - 1.
        sums: Output, [tables, n].
    """
    tables, rows, twice = mirrored.shape
    length = twice // 2
    ones, places, lows = np.uint64(0x0101010101010101), np.uint64(0x0102040810204080), np.uint64(0x7F7F7F7F7F7F7F7F)
    eights = np.empty(length // 8, np.uint64)
    chosen = eights.view(np.int8)  # all ones where the bit is one
    for i in range(bits.shape[0]):
        for j in range(length // 8):
            spread = (np.uint64(bits[i, j]) * ones) & places  # byte k keeps bit 7 - k
            eights[j] = (((spread + lows) >> np.uint64(7)) & ones) * np.uint64(255)
        start = length - 1 - turn[i]
        for t in range(tables):
            turned = mirrored[t, i % rows, start : start + length]
            total = np.int64(0)
            for j in range(length):
                total += turned[j] & np.int64(chosen[j])
            sums[t, i] = total


@_compiled("void(uint8[::1], uint8[::1])")
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


@_compiled("void(uint8[::1], uint8[::1])")
def unpack_bits(packed: Octets, bits: Octets) -> None:
    """Unpacks the first bits, [n], of packed bytes."""
    n = bits.shape[0]
    for i in range(n // 8):
        for j in range(8):
            bits[8 * i + j] = (packed[i] >> (7 - j)) & 1
    for j in range(n % 8):
        bits[n - n % 8 + j] = (packed[n // 8] >> (7 - j)) & 1


@_compiled("void(int64[:, :, ::1], int64[:, :, ::1], int64[:, :, ::1])")
def products_by_columns(x: Integers, columns: Integers, product: Integers) -> None:
    """Multiplies [b, n, k] by matrices stored by columns, [b, m, k], into [b, n, m]; each column is read once."""
    for b in range(x.shape[0]):
        for j in range(columns.shape[1]):
            for i in range(x.shape[1]):
                total = np.int64(0)
                for k in range(x.shape[2]):
                    total += x[b, i, k] * columns[b, j, k]
                product[b, i, j] = total


@_compiled("void(int64[:, :, ::1], int64[:, :, ::1], int64[:, :, ::1])")
def products_by_rows(x: Integers, rows: Integers, product: Integers) -> None:
    """Adds the product of [b, n, k] and [b, k, m] to [b, n, m]; each row is read once."""
    for b in range(x.shape[0]):
        for k in range(rows.shape[1]):
            for i in range(x.shape[1]):
                factor = x[b, i, k]
                for j in range(rows.shape[2]):
                    product[b, i, j] += factor * rows[b, k, j]


@_compiled(
    "void(uint64[::1], uint64, uint64, uint64[:, ::1], uint64[:, ::1], uint64[:, ::1], uint64[::1], uint64[::1])"
)
def evaluate_level(
    x: Words, level: Any, tweak: Any, permuted: Words, state: Words, word: Words, on: Words, value: Words
) -> None:
    """Evaluates one level of `dcf.evaluate`, from a node to its child.

    Args:
        x: Public numbers, [n].
        level: Position of the bit of x that determines the child.
        tweak: Tweak of the child's hash; 0 for the next bit of x.
        permuted: The permuted state, [n, 2].
        state: The seed XOR the tweak of its hash, [n, 2]; updated to the child's.
        word: Correction words of the level, [n, 2].
        on: The party's control bits, 0 or 1, [n]; updated to the child's.
        value: The payload so far, in bit 0, [n]; updated.
    """
    one, control = np.uint64(1), np.uint64(7)
    for i in range(x.shape[0]):
        first, second = permuted[i, 0] ^ state[i, 0], permuted[i, 1] ^ state[i, 1]
        taken = np.uint64(0) - on[i]
        low, high = word[i, 0] & taken, word[i, 1] & taken
        bits = first & control
        value[i] ^= (bits >> one) ^ (low >> np.uint64(2))
        on[i] = (bits ^ (low >> ((x[i] >> level) & one))) & one
        added = tweak if tweak else (x[i] >> (level - one)) & one
        state[i, 0] = ((first ^ low) & ~control) ^ added
        state[i, 1] = second ^ high


@_compiled(
    "void(uint64[::1], uint64, uint64[:, :, :, ::1], uint64[:, :, :, ::1], uint64[:, ::1], uint64[:, ::1], uint64[::1])"
)
def generate_level(
    alpha: Words, level: Any, permuted: Words, both: Words, word: Words, on: Words, value: Words
) -> None:
    """Generates one level of `dcf.generate`: its correction words and the children on the path to alpha.

    Args:
        alpha: Thresholds, [n].
        level: Position of the bit of alpha that determines the path.
        permuted: The permuted blocks of `both`.
        both: Inputs of the hashes for the left and the right child, [side, party, n, 2]; updated to those of the kept
            children.
        word: Output, the correction words, [n, 2].
        on: The parties' control bits, [2, n]; updated to the children's.
        value: The payload on the path so far, in bit 0, [n]; updated.
    """
    one, control = np.uint64(1), np.uint64(7)
    for i in range(alpha.shape[0]):
        bit = (alpha[i] >> level) & one
        right = np.uint64(0) - bit  # all ones where the path goes to the right
        lost_low = lost_high = kept_low = left = other = np.uint64(0)
        for p in range(2):
            low, high = permuted[0, p, i, 0] ^ both[0, p, i, 0], permuted[0, p, i, 1] ^ both[0, p, i, 1]
            low_turn = low ^ permuted[1, p, i, 0] ^ both[1, p, i, 0]
            high_turn = high ^ permuted[1, p, i, 1] ^ both[1, p, i, 1]
            lost_low ^= low ^ (low_turn & ~right)
            lost_high ^= high ^ (high_turn & ~right)
            kept_low ^= low ^ (low_turn & right)
            left ^= low
            other ^= low ^ low_turn
            both[0, p, i, 0] = low ^ (low_turn & right)  # the kept child, not yet corrected
            both[0, p, i, 1] = high ^ (high_turn & right)
        left_turn = (left ^ bit ^ one) & one
        right_turn = (other ^ bit) & one
        turn = left_turn ^ ((left_turn ^ right_turn) & bit)
        gain = value[i] ^ ((lost_low >> one) & one) ^ bit
        value[i] ^= ((kept_low >> one) & one) ^ gain
        lost_low &= ~control
        word[i, 0] = lost_low | left_turn | right_turn << one | gain << np.uint64(2)
        word[i, 1] = lost_high
        for p in range(2):
            corrected = np.uint64(0) - on[p, i]
            low, high = both[0, p, i, 0], both[0, p, i, 1]
            on[p, i] = (low & one) ^ (on[p, i] & turn)
            low = (low & ~control) ^ (lost_low & corrected)
            high ^= lost_high & corrected
            both[0, p, i, 0], both[0, p, i, 1] = low, high
            both[1, p, i, 0], both[1, p, i, 1] = low ^ one, high
