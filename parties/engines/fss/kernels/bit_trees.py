"""The trees of `dcf` keys for a bit: one level at a time, or whole trees by the processor's AES instructions.

Arrays are those of `dcf`: blocks are two words, uint64. None of the loops branches on a secret or reads memory at a
secret index. Those that evaluate or generate whole trees allocate nothing.
"""

from typing import Any

import numpy as np
from numba import carray

from parties.engines.fss.kernels.aes_instructions import compiled_with_aes, permute, stack_words
from parties.engines.fss.kernels.compiled import compiled
from parties.engines.fss.kernels.loops import Integers, Octets, Words

LEAF_LEVELS = 7
LEAF = 2  # tweak of a leaf's hash; an inner node's tweak is the bit of its child
_LANES = 64  # trees that are evaluated together: their blocks stay in the nearest cache
_PATHS = 16  # trees that are generated together, with four blocks each
_LANE_WORDS, _PATH_WORDS = 2 * _LANES, 8 * _PATHS


@compiled(
    "void(uint64[::1], int64[::1], int64, uint64[:, ::1], uint64[:, ::1], uint64[:, ::1], uint64[::1], uint64[::1])"
)
def evaluate_level(
    x: Words, owner: Integers, level: Any, permuted: Words, state: Words, word: Words, on: Words, value: Words
) -> None:
    """Evaluates one level, from a node to its child.

    Args:
        x: Public numbers, [m].
        owner: Index of each number's key, [m].
        level: Position of the bit of x that determines the child, LEAF_LEVELS or more.
        permuted: The permuted state, [m, 2].
        state: The seed XOR the tweak of its hash, [m, 2]; updated to the child's.
        word: Correction words of the level, [n, 2].
        on: The party's control bits, 0 or 1, [m]; updated to the child's.
        value: The payload so far, in bit 0, [m]; updated.
    """
    one, control, here = np.uint64(1), np.uint64(7), np.uint64(level)
    last = level == LEAF_LEVELS
    below = here - one
    for i in range(x.shape[0]):
        key, taken = np.uint64(owner[i]), np.uint64(0) - on[i]  # unsigned: Numba does not test for an index below 0
        first, second = permuted[i, 0] ^ state[i, 0], permuted[i, 1] ^ state[i, 1]
        low, high = word[key, 0] & taken, word[key, 1] & taken
        bits = first & control
        value[i] ^= (bits >> one) ^ (low >> np.uint64(2))
        on[i] = (bits ^ (low >> ((x[i] >> here) & one))) & one
        added = np.uint64(LEAF) if last else (x[i] >> below) & one
        state[i, 0] = ((first ^ low) & ~control) ^ added
        state[i, 1] = second ^ high


@compiled(
    "void(uint64[::1], int64[::1], int64, uint64[:, ::1], uint64[:, ::1], uint64[:, ::1], uint64[::1], uint64[::1],"
    "uint8[::1])"
)
def evaluate_leaf(
    x: Words,
    owner: Integers,
    width: Any,
    permuted: Words,
    state: Words,
    word: Words,
    on: Words,
    value: Words,
    shares: Octets,
) -> None:
    """Evaluates the leaf that holds the last levels into `shares`, [m]; the rest is as in `evaluate_level`."""
    one, inside = np.uint64(1), (np.uint64(1) << np.uint64(min(width, LEAF_LEVELS))) - np.uint64(1)
    for i in range(x.shape[0]):
        taken = np.uint64(0) - on[i]
        low = permuted[i, 0] ^ state[i, 0] ^ (word[owner[i], 0] & taken)
        high = permuted[i, 1] ^ state[i, 1] ^ (word[owner[i], 1] & taken)
        rest = x[i] & inside
        half = low ^ ((low ^ high) & (np.uint64(0) - (rest >> np.uint64(6))))
        shares[i] = np.uint8((value[i] ^ (half >> (rest & np.uint64(63)))) & one)


@compiled(
    "void(uint64[::1], int64, uint64[:, :, :, ::1], uint64[:, :, :, ::1], uint64[:, ::1], uint64[:, ::1], uint64[::1])"
)
def generate_level(
    alpha: Words, level: Any, permuted: Words, both: Words, word: Words, on: Words, value: Words
) -> None:
    """Generates one level: its correction words and the children on the path to alpha.

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
    one, control, here = np.uint64(1), np.uint64(7), np.uint64(level)
    for i in range(alpha.shape[0]):
        bit = (alpha[i] >> here) & one
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


@compiled("void(uint64[::1], int64, uint64[:, :, :, ::1], uint64[:, :, :, ::1], uint64[:, ::1], uint64[::1])")
def generate_leaf(alpha: Words, width: Any, permuted: Words, both: Words, word: Words, value: Words) -> None:
    """Generates the leaf's correction words from the permuted blocks of both[0] with the tweak LEAF."""
    one, inside = np.uint64(1), (np.uint64(1) << np.uint64(min(width, LEAF_LEVELS))) - np.uint64(1)
    for i in range(alpha.shape[0]):
        rest, gained = alpha[i] & inside, np.uint64(0) - value[i]
        upper, below = np.uint64(0) - (rest >> np.uint64(6)), (one << (rest & np.uint64(63))) - one
        low, high = (upper | below) ^ gained, (upper & below) ^ gained  # the 128 bits [j < rest], less the path's
        for p in range(2):
            low ^= permuted[0, p, i, 0] ^ both[0, p, i, 0]
            high ^= permuted[0, p, i, 1] ^ both[0, p, i, 1]
        word[i, 0], word[i, 1] = low, high


@compiled_with_aes("void(int64[:, ::1], uint8[:, ::1], uint8[:, :, ::1], int64[:, ::1], uint8[:, ::1], int64, int64)")
def evaluate_trees(
    x: Integers, seeds: Octets, key: Octets, round_keys: Integers, shares: Octets, party: Any, width: Any
) -> None:
    """Evaluates all keys at all of their points, as `dcf.evaluate` does.

    Args:
        x: Public numbers, [n, points]; bits from `width` on are ignored.
        seeds: The party's seeds, [n, 16].
        key: Correction words, [key_blocks, n, 16].
        round_keys: AES-128's key schedule, [11, 2].
        shares: Output, [n, points].
        party: 0 for the client, 1 for the server.
        width: Number of bits compared.
    """
    points, numbers, bits = x.shape[1], x.reshape(-1).view(np.uint64), shares.reshape(-1)
    own, words, schedule = seeds.view(np.uint64), key.view(np.uint64), round_keys.view(np.uint64)
    state, permuted = carray(stack_words(_LANE_WORDS), (_LANES, 2)), carray(stack_words(_LANE_WORDS), (_LANES, 2))
    on, value = carray(stack_words(_LANES), (_LANES,)), carray(stack_words(_LANES), (_LANES,))
    owners = carray(stack_words(_LANES), (_LANES,)).view(np.int64)
    top = np.uint64(max(width - 1, 0))
    for start in range(0, numbers.shape[0], _LANES):
        count = min(_LANES, numbers.shape[0] - start)
        here, owner = numbers[start : start + count], owners[:count]
        for i in range(count):
            owner[i] = (start + i) // points
            tweak = (here[i] >> top) & np.uint64(1) if width > LEAF_LEVELS else np.uint64(LEAF)
            state[i, 0] = (own[owner[i], 0] & ~np.uint64(7)) ^ tweak
            state[i, 1] = own[owner[i], 1]
            on[i], value[i] = np.uint64(party), np.uint64(0)
        for level in range(width - 1, LEAF_LEVELS - 1, -1):
            permute(state[:count], schedule, permuted)
            evaluate_level(here, owner, level, permuted, state, words[width - 1 - level], on, value)
        permute(state[:count], schedule, permuted)
        evaluate_leaf(here, owner, width, permuted, state, words[-1], on, value, bits[start : start + count])


@compiled_with_aes(
    "void(int64[::1], uint8[:, ::1], uint8[:, ::1], int64[:, ::1], uint8[:, :, ::1], int64, int64, int64)"
)
def generate_trees(
    alpha: Integers,
    client: Octets,
    server: Octets,
    round_keys: Integers,
    key: Octets,
    width: Any,
    first_key: Any,
    last: Any,
) -> None:
    """Generates the correction words of keys first_key to last - 1, as `dcf.generate` does.

    Args:
        alpha: Thresholds, [n]; bits from `width` on are ignored.
        client: The client's seeds, [n, 16].
        server: The server's seeds, [n, 16].
        round_keys: AES-128's key schedule, [11, 2].
        key: Output, [key_blocks, n, 16].
        width: Number of bits compared.
        first_key: The first of a thread's keys.
        last: The one after its last.
    """
    first, second, thresholds = client.view(np.uint64), server.view(np.uint64), alpha.view(np.uint64)
    words, schedule = key.view(np.uint64), round_keys.view(np.uint64)
    states, results = stack_words(_PATH_WORDS), stack_words(_PATH_WORDS)
    turns, values = stack_words(_LANES), carray(stack_words(_PATHS), (_PATHS,))
    for start in range(first_key, last, _PATHS):
        count = min(_PATHS, last - start)
        end = start + count
        both, permuted = carray(states, (2, 2, count, 2)), carray(results, (2, 2, count, 2))
        blocks, hashed = both.reshape(4 * count, 2), permuted.reshape(4 * count, 2)
        here, on, value = thresholds[start:end], carray(turns, (2, count)), values[:count]
        for i in range(count):
            for side in range(2):
                both[side, 0, i, 0] = (first[start + i, 0] & ~np.uint64(7)) ^ np.uint64(side)
                both[side, 1, i, 0] = (second[start + i, 0] & ~np.uint64(7)) ^ np.uint64(side)
                both[side, 0, i, 1], both[side, 1, i, 1] = first[start + i, 1], second[start + i, 1]
            on[0, i], on[1, i], value[i] = np.uint64(0), np.uint64(1), np.uint64(0)
        for level in range(width - 1, LEAF_LEVELS - 1, -1):
            permute(blocks, schedule, hashed)
            generate_level(here, level, permuted, both, words[width - 1 - level, start:end], on, value)
        for p in range(2):
            for i in range(count):
                both[0, p, i, 0] ^= np.uint64(LEAF)
        permute(blocks[: 2 * count], schedule, hashed)
        generate_leaf(here, width, permuted, both, words[-1, start:end], value)
