"""Whole trees of `payload_dcf` keys, by the processor's AES instructions: see `payload_levels`.

None of the loops branches on a secret, reads memory at a secret index, or allocates anything.
"""

from typing import Any

import numpy as np
from numba import carray

from parties.engines.fss.kernels.aes_instructions import compiled_with_aes, permute, stack_words
from parties.engines.fss.kernels.bit_trees import LEAF
from parties.engines.fss.kernels.loops import Integers, Octets
from parties.engines.fss.kernels.payload_levels import (
    PAYLOAD,
    evaluate_leaf,
    evaluate_level,
    generate_leaf,
    generate_level,
    parts,
)

_LANES = 64  # points that are evaluated together: their blocks stay in the nearest cache
_PATHS = 16  # trees that are generated together, with eight blocks each
_LANE_WORDS, _PATH_WORDS = 4 * _LANES, 16 * _PATHS


@compiled_with_aes(
    "void(int64[:, ::1], uint8[:, ::1], uint8[::1], int64[:, ::1], int64[:, :, ::1], int64, int64, int64)"
)
def evaluate_trees(
    x: Integers,
    seeds: Octets,
    key: Octets,
    round_keys: Integers,
    shares: Integers,
    party: Any,
    width: Any,
    leaf_levels: Any,
) -> None:
    """Evaluates all keys at all of their points, as `payload_dcf.evaluate` does.

    Args:
        x: Public numbers, [n, points]; bits from `width` on are ignored.
        seeds: The party's seeds, [n, 16].
        key: The keys.
        round_keys: AES-128's key schedule, [11, 2].
        shares: Output, [n, points, lanes].
        party: 0 for the client, 1 for the server.
        width: Number of bits compared.
        leaf_levels: Levels below the leaf.
    """
    points, lanes, numbers = x.shape[1], shares.shape[2], x.reshape(-1).view(np.uint64)
    results, own, schedule = shares.reshape(-1, lanes), seeds.view(np.uint64), round_keys.view(np.uint64)
    words, values, leaves = parts(key, x.shape[0], max(0, width - leaf_levels), lanes, leaf_levels)
    state_at, permuted_at, total_at = stack_words(_LANE_WORDS), stack_words(_LANE_WORDS), stack_words(_LANE_WORDS)
    on = carray(stack_words(_LANES), (_LANES,))
    owners = carray(stack_words(_LANES), (_LANES,)).view(np.int64)
    totals = carray(total_at, (_LANE_WORDS,)).view(np.int64)
    for start in range(0, numbers.shape[0], _LANES):
        count = min(_LANES, numbers.shape[0] - start)
        here, owner = numbers[start : start + count], owners[:count]
        state, permuted = carray(state_at, (2, count, 2)), carray(permuted_at, (2, count, 2))
        total = totals[: count * lanes].reshape(count, lanes)
        for i in range(count):
            owner[i] = (start + i) // points
            tweak = (here[i] >> np.uint64(width - 1)) & np.uint64(1) if width > leaf_levels else np.uint64(LEAF)
            for kind in range(2):
                state[kind, i, 0] = (own[owner[i], 0] & ~np.uint64(7)) ^ tweak ^ np.uint64(PAYLOAD * kind)
                state[kind, i, 1] = own[owner[i], 1]
            on[i] = np.uint64(party)
            total[i] = 0
        flat, flat_permuted = state.reshape(2 * count, 2), permuted.reshape(2 * count, 2)
        for level in range(width - 1, leaf_levels - 1, -1):
            at = width - 1 - level
            permute(flat, schedule, flat_permuted)
            evaluate_level(here, owner, level, leaf_levels, permuted, state, words[at], values[at], on, total)
        permute(flat[:count], schedule, flat_permuted)
        rest = min(width, leaf_levels)
        evaluate_leaf(here, owner, party, rest, permuted, state, leaves, on, total, results[start : start + count])


@compiled_with_aes(
    "void(int64[::1], int64[:, ::1], uint8[:, ::1], uint8[:, ::1], int64[:, ::1], uint8[::1], "
    "int64, int64, int64, int64)"
)
def generate_trees(
    alpha: Integers,
    beta: Integers,
    client: Octets,
    server: Octets,
    round_keys: Integers,
    key: Octets,
    width: Any,
    leaf_levels: Any,
    first_key: Any,
    last: Any,
) -> None:
    """Generates keys first_key to last - 1, as `payload_dcf.generate` does.

    Args:
        alpha: Thresholds, [n]; bits from `width` on are ignored.
        beta: Payloads, [n, lanes].
        client: The client's seeds, [n, 16].
        server: The server's seeds, [n, 16].
        round_keys: AES-128's key schedule, [11, 2].
        key: Output, the keys.
        width: Number of bits compared.
        leaf_levels: Levels below the leaf.
        first_key: The first of a thread's keys.
        last: The one after its last.
    """
    lanes, thresholds, schedule = beta.shape[1], alpha.view(np.uint64), round_keys.view(np.uint64)
    first, second = client.view(np.uint64), server.view(np.uint64)
    words, values, leaves = parts(key, alpha.shape[0], max(0, width - leaf_levels), lanes, leaf_levels)
    states, results, turns = stack_words(_PATH_WORDS), stack_words(_PATH_WORDS), stack_words(_LANE_WORDS)
    totals = carray(stack_words(_LANE_WORDS), (_LANE_WORDS,)).view(np.int64)
    for start in range(first_key, last, _PATHS):
        count = min(_PATHS, last - start)
        end = start + count
        here, payload = thresholds[start:end], beta[start:end]
        state, permuted = carray(states, (2, 2, 2, count, 2)), carray(results, (2, 2, 2, count, 2))
        on, total = carray(turns, (2, count)), totals[: count * lanes].reshape(count, lanes)
        for i in range(count):
            for kind in range(2):
                for side in range(2):
                    tweak = np.uint64(PAYLOAD * kind + side)
                    state[kind, side, 0, i, 0] = (first[start + i, 0] & ~np.uint64(7)) ^ tweak
                    state[kind, side, 1, i, 0] = (second[start + i, 0] & ~np.uint64(7)) ^ tweak
                    state[kind, side, 0, i, 1], state[kind, side, 1, i, 1] = first[start + i, 1], second[start + i, 1]
            on[0, i], on[1, i] = np.uint64(0), np.uint64(1)
            total[i] = 0
        flat, flat_permuted = state.reshape(8 * count, 2), permuted.reshape(8 * count, 2)
        for level in range(width - 1, leaf_levels - 1, -1):
            at = width - 1 - level
            permute(flat, schedule, flat_permuted)
            word, value = words[at, start:end], values[at, start:end]
            generate_level(here, payload, level, permuted, state, word, value, on, total)
        for p in range(2):
            for i in range(count):
                state[0, 0, p, i, 0] ^= np.uint64(LEAF)
        permute(flat[: 2 * count], schedule, flat_permuted)
        generate_leaf(here, payload, min(width, leaf_levels), permuted, state, leaves[start:end], on, total)
