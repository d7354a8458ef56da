"""The trees of `payload_dcf` keys, one level at a time; the hashes between two levels are the caller's.

Arrays are those of `payload_dcf`: blocks are two words, uint64; elements of Z_2^32 are computed in int64, where only
their low 32 bits count. None of the loops branches on a secret or reads memory at a secret index.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from parties.engines.fss.kernels.bit_trees import LEAF
from parties.engines.fss.kernels.compiled import compiled
from parties.engines.fss.kernels.loops import Integers, Octets, Words

MOST_LANES = 4
PAYLOAD = 4  # tweak of a payload's hash, XOR the bit of its child

Values = NDArray[np.uint32]


@compiled("Tuple((uint64[:, :, ::1], uint32[:, :, ::1], uint32[:, ::1]))(uint8[::1], int64, int64, int64, int64)")
def parts(key: Octets, n: Any, levels: Any, lanes: Any, leaf_levels: Any) -> Any:
    """Returns views of the parts of n keys, which are the same for both parties.

    Correction words, uint64, [levels, n, 2]; corrections of the payloads, uint32, [levels, n, lanes]; corrections of
    the leaves, uint32, [n, elements].
    """
    words, values = levels * n * 16, levels * n * 4 * lanes
    return (
        key[:words].view(np.uint64).reshape(levels, n, 2),
        key[words : words + values].view(np.uint32).reshape(levels, n, lanes),
        key[words + values :].view(np.uint32).reshape(n, lanes << leaf_levels),
    )


@compiled("int64(uint64, uint64, int64)")
def _lane(low: Any, high: Any, lane: Any) -> Any:
    """Returns one of the four elements of a block."""
    half = low if lane < 2 else high
    return np.int64((half >> np.uint64(32 * (lane & 1))) & np.uint64(0xFFFFFFFF))


@compiled(
    "void(uint64[::1], int64[::1], int64, int64, uint64[:, :, ::1], uint64[:, :, ::1], uint64[:, ::1],"
    "uint32[:, ::1], uint64[::1], int64[:, ::1])"
)
def evaluate_level(
    x: Words,
    owner: Integers,
    level: Any,
    leaf_levels: Any,
    permuted: Words,
    state: Words,
    word: Words,
    values: Values,
    on: Words,
    total: Integers,
) -> None:
    """Evaluates one level, from a node to its child.

    Args:
        x: Public numbers, [m].
        owner: Index of each number's key, [m].
        level: Position of the bit of x that determines the child.
        leaf_levels: Levels below the leaf.
        permuted: The permuted state.
        state: Inputs of the hashes for the child and its payload, [2, m, 2]; updated to the child's.
        word: Correction words of the level, [n, 2].
        values: Corrections of the payload, [n, lanes].
        on: The party's control bits, 0 or 1, [m]; updated to the child's.
        total: The payload so far, without its sign, [m, lanes]; updated.
    """
    one, control, here = np.uint64(1), np.uint64(7), np.uint64(level)
    last = level == leaf_levels
    below = here - one
    for i in range(x.shape[0]):
        key = np.uint64(owner[i])  # unsigned: Numba does not test for an index below 0
        low, high = permuted[0, i, 0] ^ state[0, i, 0], permuted[0, i, 1] ^ state[0, i, 1]
        first, second = permuted[1, i, 0] ^ state[1, i, 0], permuted[1, i, 1] ^ state[1, i, 1]
        for lane in range(values.shape[1]):
            total[i, lane] += _lane(first, second, lane) + np.int64(on[i]) * np.int64(values[key, lane])
        taken = np.uint64(0) - on[i]
        corrected = word[key, 0] & taken
        on[i] = (low ^ (corrected >> ((x[i] >> here) & one))) & one
        added = np.uint64(LEAF) if last else (x[i] >> below) & one
        state[0, i, 0] = ((low ^ corrected) & ~control) ^ added
        state[0, i, 1] = high ^ (word[key, 1] & taken)
        state[1, i, 0], state[1, i, 1] = state[0, i, 0] ^ np.uint64(PAYLOAD), state[0, i, 1]


@compiled(
    "void(uint64[::1], int64[::1], int64, int64, uint64[:, :, ::1], uint64[:, :, ::1], uint32[:, ::1], uint64[::1],"
    "int64[:, ::1], int64[:, ::1])"
)
def evaluate_leaf(
    x: Words,
    owner: Integers,
    party: Any,
    rest_levels: Any,
    permuted: Words,
    state: Words,
    leaves: Values,
    on: Words,
    total: Integers,
    shares: Integers,
) -> None:
    """Evaluates the leaf that holds the last `rest_levels` levels into `shares`, [m, lanes], from 0 to 2^32 - 1."""
    lanes, inside = shares.shape[1], (np.uint64(1) << np.uint64(rest_levels)) - np.uint64(1)
    sign = np.int64(1 - 2 * party)
    for i in range(x.shape[0]):
        low, high = permuted[0, i, 0] ^ state[0, i, 0], permuted[0, i, 1] ^ state[0, i, 1]
        place = np.int64(x[i] & inside) * lanes
        for lane in range(lanes):
            leaf = _lane(low, high, place + lane) + np.int64(on[i]) * np.int64(leaves[owner[i], place + lane])
            shares[i, lane] = (sign * (total[i, lane] + leaf)) & np.int64(0xFFFFFFFF)


@compiled(
    "void(uint64[::1], int64[:, ::1], int64, uint64[:, :, :, :, ::1], uint64[:, :, :, :, ::1], uint64[:, ::1],"
    "uint32[:, ::1], uint64[:, ::1], int64[:, ::1])"
)
def generate_level(
    alpha: Words,
    beta: Integers,
    level: Any,
    permuted: Words,
    state: Words,
    word: Words,
    values: Values,
    on: Words,
    total: Integers,
) -> None:
    """Generates one level: its corrections and the children on the path to alpha.

    Args:
        alpha: Thresholds, [n].
        beta: Payloads, [n, lanes].
        level: Position of the bit of alpha that determines the path.
        permuted: The permuted state.
        state: Inputs of the hashes of children and of their payloads, [2, side, party, n, 2]; updated to those of the
            kept children.
        word: Output, the correction words, [n, 2].
        values: Output, the corrections of the payload, [n, lanes].
        on: The parties' control bits, [2, n]; updated to the children's.
        total: The sum of both parties' payloads on the path so far, [n, lanes]; updated.
    """
    one, control, here = np.uint64(1), np.uint64(7), np.uint64(level)
    for i in range(alpha.shape[0]):
        bit = (alpha[i] >> here) & one
        right = np.uint64(0) - bit  # all ones where the path goes to the right
        sign, goes_right = np.int64(1) - np.int64(2) * np.int64(on[1, i]), np.int64(bit)
        for lane in range(beta.shape[1]):
            lost, kept = np.int64(0), np.int64(0)  # of the server less those of the client
            for p in range(2):
                left_value = _lane(permuted[1, 0, p, i, 0] ^ state[1, 0, p, i, 0],
                                   permuted[1, 0, p, i, 1] ^ state[1, 0, p, i, 1], lane)  # fmt: skip
                right_value = _lane(permuted[1, 1, p, i, 0] ^ state[1, 1, p, i, 0],
                                    permuted[1, 1, p, i, 1] ^ state[1, 1, p, i, 1], lane)  # fmt: skip
                step = goes_right * (left_value - right_value)
                lost += np.int64(2 * p - 1) * (right_value + step)
                kept += np.int64(2 * p - 1) * (left_value - step)
            correction = sign * (lost - total[i, lane] + goes_right * beta[i, lane])
            total[i, lane] += sign * correction - kept
            values[i, lane] = np.uint32(correction & np.int64(0xFFFFFFFF))
        lost_low = lost_high = left = other = np.uint64(0)
        for p in range(2):
            low, high = permuted[0, 0, p, i, 0] ^ state[0, 0, p, i, 0], permuted[0, 0, p, i, 1] ^ state[0, 0, p, i, 1]
            low_turn = low ^ permuted[0, 1, p, i, 0] ^ state[0, 1, p, i, 0]
            high_turn = high ^ permuted[0, 1, p, i, 1] ^ state[0, 1, p, i, 1]
            lost_low ^= low ^ (low_turn & ~right)
            lost_high ^= high ^ (high_turn & ~right)
            left ^= low
            other ^= low ^ low_turn
            state[0, 0, p, i, 0] = low ^ (low_turn & right)  # the kept child, not yet corrected
            state[0, 0, p, i, 1] = high ^ (high_turn & right)
        left_turn = (left ^ bit ^ one) & one
        right_turn = (other ^ bit) & one
        turn = left_turn ^ ((left_turn ^ right_turn) & bit)
        lost_low &= ~control
        word[i, 0], word[i, 1] = lost_low | left_turn | right_turn << one, lost_high
        for p in range(2):
            corrected = np.uint64(0) - on[p, i]
            low, high = state[0, 0, p, i, 0], state[0, 0, p, i, 1]
            on[p, i] = (low & one) ^ (on[p, i] & turn)
            low = (low & ~control) ^ (lost_low & corrected)
            high ^= lost_high & corrected
            for kind in range(2):
                for side in range(2):
                    state[kind, side, p, i, 0] = low ^ np.uint64(PAYLOAD * kind + side)
                    state[kind, side, p, i, 1] = high


@compiled(
    "void(uint64[::1], int64[:, ::1], int64, uint64[:, :, :, :, ::1], uint64[:, :, :, :, ::1], uint32[:, ::1],"
    "uint64[:, ::1], int64[:, ::1])"
)
def generate_leaf(
    alpha: Words,
    beta: Integers,
    rest_levels: Any,
    permuted: Words,
    state: Words,
    leaves: Values,
    on: Words,
    total: Integers,
) -> None:
    """Generates the leaf's corrections, [n, elements], from the permuted blocks of state[0, 0] with the tweak LEAF."""
    lanes, inside = beta.shape[1], (np.uint64(1) << np.uint64(rest_levels)) - np.uint64(1)
    for i in range(alpha.shape[0]):
        sign, rest = np.int64(1) - np.int64(2) * np.int64(on[1, i]), np.int64(alpha[i] & inside)
        for element in range(leaves.shape[1]):
            lane, place = element % lanes, np.int64(element // lanes)
            correction = ((place - rest) >> np.int64(63) & np.int64(1)) * beta[i, lane] - total[i, lane]
            for p in range(2):
                leaf = _lane(permuted[0, 0, p, i, 0] ^ state[0, 0, p, i, 0],
                             permuted[0, 0, p, i, 1] ^ state[0, 0, p, i, 1], element)  # fmt: skip
                correction += np.int64(2 * p - 1) * leaf
            leaves[i, element] = np.uint32((sign * correction) & np.int64(0xFFFFFFFF))
