"""The trees of `cell_dpf`: all cells of each key at once, added up by public places.

Levels are generated as in `bit_trees`, whose payload is not used. The seeds of the last level are the leaves: a block
less its control bits holds four elements of Z_2^30. None of the loops branches on a secret or reads memory at a secret
index, and none allocates.
"""

from typing import Any

import numpy as np
from numba import carray

from parties.engines.fss.kernels.aes_instructions import compiled_with_aes, permute, stack_words
from parties.engines.fss.kernels.bit_trees import generate_level
from parties.engines.fss.kernels.compiled import compiled
from parties.engines.fss.kernels.loops import Integers, Octets, Words

LEVELS = 5
LANES = 4  # elements of a leaf
LANE_BITS = 30
BLOCKS = 1 << LEVELS
CELLS = LANES * BLOCKS
KEY_BYTES = 16 * (LEVELS + 1)
HASHES = 2 * (BLOCKS - 1)  # that evaluate all cells of a key
TOGETHER = 8  # keys that are evaluated together: the first levels of one have few blocks
_PATHS = 16  # keys that are generated together, with four blocks each
_BLOCKS = TOGETHER * BLOCKS
_BLOCK_WORDS, _PATH_WORDS, _TURNED = 2 * _BLOCKS, 8 * _PATHS, 2 * CELLS
_HIGH, _LOW = np.uint64(64 - LANE_BITS), np.uint64(4)  # first bits of the elements of a word


@compiled("Tuple((uint64[:, :, ::1], int32[:, ::1]))(uint8[::1], int64)")
def parts(key: Octets, n: Any) -> Any:
    """Returns views: correction words, [LEVELS, n, 2], and corrections of the leaves, [n, LANES]."""
    words = LEVELS * n * 16
    return key[:words].view(np.uint64).reshape(LEVELS, n, 2), key[words:].view(np.int32).reshape(n, LANES)


@compiled("int64(uint64, uint64, int64)")
def element_of(low: Any, high: Any, lane: Any) -> Any:
    """Returns an element of a leaf, 0 to 2^LANE_BITS - 1."""
    word = low if lane < 2 else high
    return np.int64((word >> (_LOW if lane & 1 else _HIGH)) & ((np.uint64(1) << np.uint64(LANE_BITS)) - np.uint64(1)))


@compiled("void(uint64[:, ::1], int64, int64, uint64[:, ::1])")
def sides_of(state: Words, count: Any, width: Any, sides: Words) -> None:
    """Prepares the hashes of both children of `count` times `width` nodes, [2 count width, 2]."""
    for node in range(count * width):
        for side in range(2):
            sides[2 * node + side, 0] = state[node, 0] ^ np.uint64(side)
            sides[2 * node + side, 1] = state[node, 1]


@compiled("void(uint64[:, ::1], uint64[:, ::1], int64, int64, uint64[:, ::1], uint64[:, ::1], uint64[::1])")
def descend(permuted: Words, sides: Words, count: Any, width: Any, word: Words, state: Words, on: Words) -> None:
    """Goes from `width` nodes of each of `count` keys to their children.

    Args:
        permuted: The permuted `sides`.
        sides: Inputs of the hashes.
        count: Number of keys.
        width: Nodes of a key.
        word: Correction words of the level, [count, 2].
        state: Output, seeds of the children.
        on: Control bits of the nodes, 0 or 1; updated to the children's.
    """
    one, control = np.uint64(1), np.uint64(7)
    for node in range(count * width - 1, -1, -1):  # children do not overwrite nodes that are still needed
        taken, key = np.uint64(0) - on[node], node // width
        low, high = word[key, 0] & taken, word[key, 1] & taken
        for side in range(2):
            child = 2 * node + side
            first = permuted[child, 0] ^ sides[child, 0]
            on[child] = (first ^ (low >> np.uint64(side))) & one
            state[child, 0] = (first ^ low) & ~control
            state[child, 1] = permuted[child, 1] ^ sides[child, 1] ^ high


@compiled("void(uint64[:, ::1], uint64[::1], int32[::1], int64, int64, int64[::1], int64[::1])")
def add_cells(
    leaves: Words, on: Words, correction: Integers, place: Any, party: Any, turned: Integers, counts: Integers
) -> None:
    """Adds the party's share of cell j to the count of `place` - j, for all cells of a key.

    Args:
        leaves: Seeds of the key's last level, [BLOCKS, 2].
        on: Their control bits, [BLOCKS].
        correction: Correction of the leaves, [LANES].
        place: The public place, 0 to CELLS - 1.
        party: 0 for the client, 1 for the server.
        turned: Memory for the reversed cells, twice, [2 CELLS].
        counts: Counts so far, [CELLS]; updated.
    """
    sign = 1 - 2 * party
    for block in range(BLOCKS):
        taken = np.int64(on[block])
        for lane in range(LANES):
            value = sign * (element_of(leaves[block, 0], leaves[block, 1], lane) + taken * correction[lane])
            cell = CELLS - 1 - (block * LANES + lane)
            turned[cell] = turned[CELLS + cell] = value
    start = CELLS - 1 - place
    for i in range(CELLS):
        counts[i] += turned[start + i]


@compiled("void(int64[::1], uint64[:, :, :, ::1], uint64[:, ::1], int32[:, ::1])")
def correct_leaves(alpha: Integers, both: Words, on: Words, corrections: Integers) -> None:
    """Computes the corrections of leaves, [n, LANES], from the seeds both[0] and control bits on the paths to alpha."""
    for i in range(alpha.shape[0]):
        sign = np.int64(1) - np.int64(2) * np.int64(on[1, i])
        for lane in range(LANES):
            client = element_of(both[0, 0, i, 0], both[0, 0, i, 1], lane)
            server = element_of(both[0, 1, i, 0], both[0, 1, i, 1], lane)
            hit = np.int64(lane == (alpha[i] & (LANES - 1)))
            corrections[i, lane] = np.int32((sign * (hit - client + server)) & ((1 << LANE_BITS) - 1))


@compiled_with_aes("void(int64[:, ::1], uint8[:, ::1], uint8[::1], int64[:, ::1], int64[:, ::1], int64)")
def evaluate_trees(
    places: Integers, seeds: Octets, key: Octets, round_keys: Integers, counts: Integers, party: Any
) -> None:
    """Evaluates all cells of all keys and adds them up by row, as `cell_dpf.evaluate` does.

    Args:
        places: Public places, [rows, n].
        seeds: The party's seeds, [rows n, 16].
        key: The keys.
        round_keys: AES-128's key schedule, [11, 2].
        counts: Output, [rows, CELLS].
        party: 0 for the client, 1 for the server.
    """
    n = places.shape[1]
    words, corrections = parts(key, seeds.shape[0])
    own, schedule = seeds.view(np.uint64), round_keys.view(np.uint64)
    state = carray(stack_words(_BLOCK_WORDS), (_BLOCKS, 2))
    sides, permuted = carray(stack_words(_BLOCK_WORDS), (_BLOCKS, 2)), carray(stack_words(_BLOCK_WORDS), (_BLOCKS, 2))
    on = carray(stack_words(_BLOCKS), (_BLOCKS,))
    turned = carray(stack_words(_TURNED), (_TURNED,)).view(np.int64)
    for row in range(places.shape[0]):
        counts[row] = 0
        for start in range(0, n, TOGETHER):
            count, first = min(TOGETHER, n - start), row * n + start
            for i in range(count):
                state[i, 0], state[i, 1] = own[first + i, 0] & ~np.uint64(7), own[first + i, 1]
                on[i] = np.uint64(party)
            for level in range(LEVELS):
                width = 1 << level
                sides_of(state, count, width, sides)
                permute(sides[: 2 * count * width], schedule, permuted)
                descend(permuted, sides, count, width, words[level, first : first + count], state, on)
            for i in range(count):
                own_blocks = slice(i * BLOCKS, (i + 1) * BLOCKS)
                place = places[row, start + i]
                add_cells(state[own_blocks], on[own_blocks], corrections[first + i], place, party, turned, counts[row])


@compiled_with_aes("void(int64[::1], uint8[:, ::1], uint8[:, ::1], int64[:, ::1], uint8[::1])")
def generate_trees(alpha: Integers, client: Octets, server: Octets, round_keys: Integers, key: Octets) -> None:
    """Generates all keys, as `cell_dpf.generate` does.

    Args:
        alpha: The cells that count, [n], 0 to CELLS - 1.
        client: The client's seeds, [n, 16].
        server: The server's seeds, [n, 16].
        round_keys: AES-128's key schedule, [11, 2].
        key: Output, the keys.
    """
    words, corrections = parts(key, alpha.shape[0])
    first, second, schedule = client.view(np.uint64), server.view(np.uint64), round_keys.view(np.uint64)
    states, results = stack_words(_PATH_WORDS), stack_words(_PATH_WORDS)
    turns, values = stack_words(2 * 16), carray(stack_words(_PATHS), (_PATHS,))
    for start in range(0, alpha.shape[0], _PATHS):
        count = min(_PATHS, alpha.shape[0] - start)
        end = start + count
        both, permuted = carray(states, (2, 2, count, 2)), carray(results, (2, 2, count, 2))
        here, on, unused = alpha[start:end], carray(turns, (2, count)), values[:count]
        for i in range(count):
            for side in range(2):
                both[side, 0, i, 0] = (first[start + i, 0] & ~np.uint64(7)) ^ np.uint64(side)
                both[side, 1, i, 0] = (second[start + i, 0] & ~np.uint64(7)) ^ np.uint64(side)
                both[side, 0, i, 1], both[side, 1, i, 1] = first[start + i, 1], second[start + i, 1]
            on[0, i], on[1, i], unused[i] = np.uint64(0), np.uint64(1), np.uint64(0)
        for level in range(LEVELS):
            permute(both.reshape(4 * count, 2), schedule, permuted.reshape(4 * count, 2))
            bit = LEVELS + 1 - level  # two bits are within a leaf
            generate_level(here.view(np.uint64), bit, permuted, both, words[level, start:end], on, unused)
        correct_leaves(here, both, on, corrections[start:end])
