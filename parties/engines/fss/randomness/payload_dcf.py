"""A distributed comparison function with a payload: additive shares of beta [x < alpha] for a public x.

Figure 1 of Boyle et al. (EUROCRYPT 2021), as in `dcf`, for payloads of one to four elements of Z_2^32, the *lanes*.
Each node also hashes its seed to a payload, and each level also has a correction of the payload. The tree is cut early
(Boyle, Gilboa, Ishai, CCS 2016) as far as a leaf of 128 bits holds the last levels: two of them with one lane, one with
two. Generator, permutation and what bounds an attack are those of `dcf`; the hash of a payload has a tweak of its own.
One key may be evaluated at any number of public points.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from parties.engines.fss.kernels import payload_trees
from parties.engines.fss.kernels.bit_trees import LEAF
from parties.engines.fss.kernels.payload_trees import MOST_LANES, PAYLOAD
from parties.engines.fss.randomness.dcf import Bits, Blocks, Permutation, Permuted, Words, blocks_of, clean

Integers = NDArray[np.int64]
Values = NDArray[np.uint32]


class Key(NamedTuple):
    """The parts of the keys of n comparisons; the same for both parties.

    Attributes:
        words: Correction words, uint64, [levels, n, 2].
        values: Corrections of the payloads, uint32, [levels, n, lanes].
        leaves: Corrections of the leaves, uint32, [n, elements].
    """

    words: Blocks
    values: Values
    leaves: Values


def leaf_levels(lanes: int) -> int:
    """Returns the number of levels that a leaf holds."""
    return (MOST_LANES // lanes).bit_length() - 1


def levels(width: int, lanes: int) -> int:
    """Returns the number of levels above the leaves; each takes two hashes to evaluate."""
    return max(0, width - leaf_levels(lanes))


def key_bytes(width: int, lanes: int) -> int:
    """Returns the size of a key for comparisons of `width` bits."""
    return levels(width, lanes) * (16 + 4 * lanes) + 4 * (lanes << leaf_levels(lanes))


def generate(permutation: Permutation, alpha: Words, beta: Integers, width: int, first: Bits, second: Bits) -> Bits:
    """Generates the keys, the same for both parties: uint8, [n key_bytes].

    Args:
        permutation: The session's permutation.
        alpha: Thresholds, uint64, [n]; bits from `width` on are ignored.
        beta: Payloads, int64, [n, lanes], of which the low 32 bits count.
        width: Number of bits compared, 1 to 63.
        first: The client's seeds, uint8, [n, 16].
        second: The server's seeds, uint8, [n, 16].
    """
    n, lanes = beta.shape
    octets, leaf = np.empty(n * key_bytes(width, lanes), dtype=np.uint8), leaf_levels(lanes)
    key, seeds = parts(octets, n, width, lanes), (blocks_of(first), blocks_of(second))
    if permutation.instructions:
        keys = permutation.round_keys
        payload_trees.generate_trees(alpha, beta, *seeds, keys, key.words, key.values, key.leaves, width, leaf)
        return octets
    state = np.empty((2, 2, 2, n, 2), dtype=np.uint64)  # [child or payload, side, party, n, 2]
    state[:] = np.stack([clean(blocks) for blocks in seeds])
    state[..., 0] ^= np.array([[0, 1], [PAYLOAD, PAYLOAD + 1]], dtype=np.uint64)[:, :, None, None]
    permuted = Permuted(permutation, state)
    on, total = np.stack([np.zeros_like(alpha), np.ones_like(alpha)]), np.zeros_like(beta)
    for at in range(levels(width, lanes)):
        level = width - 1 - at
        payload_trees.generate_level(
            alpha, beta, level, permuted.now(), state, key.words[at], key.values[at], on, total
        )
    state[0, 0, ..., 0] ^= np.uint64(LEAF)
    payload_trees.generate_leaf(alpha, beta, min(width, leaf), permuted.now(), state, key.leaves, on, total)
    return octets


def evaluate(
    permutation: Permutation, party: int, x: Words, width: int, lanes: int, seed: Bits, octets: Bits
) -> Integers:
    """Evaluates this party's shares of beta [x < alpha] modulo 2^32: int64, [n, points, lanes], 0 to 2^32 - 1.

    Args:
        permutation: The permutation that the key was generated with.
        party: 0 for the client, 1 for the server.
        x: Public numbers, uint64, [n, points]; bits from `width` on are ignored.
        width: Number of bits compared.
        lanes: Number of elements of a payload.
        seed: This party's seeds, uint8, [n, 16].
        octets: The keys of `generate`.
    """
    (n, points), leaf = x.shape, leaf_levels(lanes)
    key, shares = parts(octets, n, width, lanes), np.empty((n, points, lanes), dtype=np.int64)
    if permutation.instructions:
        seeds, keys = blocks_of(seed), permutation.round_keys
        payload_trees.evaluate_trees(x, seeds, key.words, key.values, key.leaves, keys, shares, party, width, leaf)
        return shares
    numbers, owner = x.reshape(-1), np.repeat(np.arange(n), points)
    state = np.stack([clean(blocks_of(seed))[owner]] * 2)  # [child or payload, n points, 2]
    state[..., 0] ^= (numbers >> np.uint64(width - 1)) & np.uint64(1) if width > leaf else np.uint64(LEAF)
    state[1, :, 0] ^= np.uint64(PAYLOAD)
    permuted = Permuted(permutation, state)
    on, total = np.full_like(numbers, party), np.zeros((len(numbers), lanes), dtype=np.int64)
    for at in range(levels(width, lanes)):
        level = width - 1 - at
        payload_trees.evaluate_level(
            numbers, owner, level, leaf, permuted.now(), state, key.words[at], key.values[at], on, total
        )
    payload_trees.evaluate_leaf(
        numbers, owner, party, min(width, leaf), permuted.now(), state, key.leaves, on, total, shares.reshape(-1, lanes)
    )
    return shares


def evaluate_on(
    permutation: Permutation, party: int, x: torch.Tensor, width: int, lanes: int, seed: Bits, octets: Bits
) -> torch.Tensor:
    """Does the same as `evaluate` on the GPU of x, int64, [n, points], with identical results, which stay there."""
    from parties.engines.fss.kernels import comparison  # Triton, which only a GPU needs

    key = parts(octets, len(x), width, lanes)
    seeds, words, values, leaves = (
        torch.from_numpy(array).to(x.device)
        for array in (
            blocks_of(np.ascontiguousarray(seed)).view(np.int64),
            key.words.view(np.int64),
            key.values.view(np.int32),
            key.leaves.view(np.int32),
        )
    )
    return comparison.evaluate_payload(
        party, x.contiguous(), width, leaf_levels(lanes), seeds, words, values, leaves, permutation.key
    )


def parts(octets: Bits, n: int, width: int, lanes: int) -> Key:
    """Returns views of the parts of n keys."""
    above, elements = levels(width, lanes), lanes << leaf_levels(lanes)
    words, values = above * n * 16, above * n * 4 * lanes
    return Key(
        octets[:words].view(np.uint64).reshape(above, n, 2),
        octets[words : words + values].view(np.uint32).reshape(above, n, lanes),
        octets[words + values :].view(np.uint32).reshape(n, elements),
    )
