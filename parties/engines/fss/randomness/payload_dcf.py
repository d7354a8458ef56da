"""A distributed comparison function with a payload: additive shares of beta [x < alpha] for a public x.

Figure 1 of Boyle et al. (EUROCRYPT 2021), as in `dcf`, for payloads of one to four elements of Z_2^32, the *lanes*.
Each node also hashes its seed to a payload, and each level also has a correction of the payload. The tree is cut early
(Boyle, Gilboa, Ishai, CCS 2016) as far as a leaf of 128 bits holds the last levels: two of them with one lane, one with
two. Generator, permutation and what bounds an attack are those of `dcf`; the hash of a payload has a tweak of its own.
One key may be evaluated at any number of public points.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from parties.engines.fss.kernels import payload_levels, payload_trees
from parties.engines.fss.kernels.bit_trees import LEAF
from parties.engines.fss.kernels.call import call
from parties.engines.fss.kernels.loops import Integers, Octets
from parties.engines.fss.kernels.payload_levels import MOST_LANES, PAYLOAD
from parties.engines.fss.randomness.dcf import Permutation, Permuted, generate_keys, seeds_of


def leaf_levels(lanes: int) -> int:
    """Returns the number of levels that a leaf holds."""
    return (MOST_LANES // lanes).bit_length() - 1


def levels(width: int, lanes: int) -> int:
    """Returns the number of levels above the leaves; each takes two hashes to evaluate."""
    return max(0, width - leaf_levels(lanes))


def key_bytes(width: int, lanes: int) -> int:
    """Returns the size of a key for comparisons of `width` bits."""
    return levels(width, lanes) * (16 + 4 * lanes) + 4 * (lanes << leaf_levels(lanes))


def generate(
    permutation: Permutation, alpha: Tensor, beta: Tensor, width: int, first: Tensor, second: Tensor
) -> Tensor:
    """Generates the keys, the same for both parties: uint8, [n key_bytes]; see `payload_levels.parts`.

    Args:
        permutation: The session's permutation.
        alpha: Thresholds, int64, [n]; bits from `width` on are ignored.
        beta: Payloads, int64, [n, lanes], of which the low 32 bits count.
        width: Number of bits compared, 1 to 63.
        first: The client's seeds, uint8, [n, 16].
        second: The server's seeds, uint8, [n, 16].
    """
    n, lanes = beta.shape
    alpha, beta, leaf = alpha.contiguous(), beta.contiguous(), leaf_levels(lanes)
    key = torch.empty(n * key_bytes(width, lanes), dtype=torch.uint8)
    if permutation.instructions:
        keys = permutation.round_keys
        generate_keys(payload_trees.generate_trees, n, alpha, beta, first, second, keys, key, width, leaf)
    else:
        call(partial(_generate_by_library, permutation), alpha, beta, first, second, key, width, leaf)
    return key


def evaluate(
    permutation: Permutation, party: int, x: Tensor, width: int, lanes: int, seed: Tensor, key: Tensor
) -> Tensor:
    """Evaluates this party's shares of beta [x < alpha] modulo 2^32: int64, [n, points, lanes], 0 to 2^32 - 1.

    Args:
        permutation: The permutation that the key was generated with.
        party: 0 for the client, 1 for the server.
        x: Public numbers, int64, [n, points], on the CPU or a GPU; bits from `width` on are ignored.
        width: Number of bits compared.
        lanes: Number of elements of a payload.
        seed: This party's seeds, uint8, [n, 16].
        key: The keys of `generate`.
    """
    x, (n, points), leaf = x.contiguous(), x.shape, leaf_levels(lanes)
    shares = torch.empty(n, points, lanes, dtype=torch.int64, device=x.device)
    if x.is_cuda:
        from parties.engines.fss.kernels import comparison  # Triton, which only a GPU needs

        constants, above = comparison.constants(permutation.key, x.device), levels(width, lanes)
        call(comparison.evaluate_payload, x, seed, key, *constants, shares, party, width, above)
    elif permutation.instructions:
        keys = permutation.round_keys
        call(payload_trees.evaluate_trees, x, seed, key, keys, shares, party, width, leaf)
    else:
        call(partial(_evaluate_by_library, permutation), x, seed, key, shares, party, width, leaf)
    return shares


def _generate_by_library(
    permutation: Permutation,
    alpha: Integers,
    beta: Integers,
    first: Octets,
    second: Octets,
    key: Octets,
    width: int,
    leaf: int,
) -> None:
    n, lanes = beta.shape
    words, values, leaves = payload_levels.parts(key, n, levels(width, lanes), lanes, leaf)
    seeds, thresholds = np.stack([seeds_of(first), seeds_of(second)]), alpha.view(np.uint64)
    state = np.broadcast_to(seeds, (2, 2, 2, n, 2)).copy()  # [child or payload, side, party, n, 2]
    state[..., 0] ^= np.array([[0, 1], [PAYLOAD, PAYLOAD + 1]], dtype=np.uint64)[:, :, None, None]
    permuted = Permuted(permutation, state)
    on, total = np.stack([np.zeros_like(thresholds), np.ones_like(thresholds)]), np.zeros_like(beta)
    for at, (word, value) in enumerate(zip(words, values, strict=True)):
        payload_levels.generate_level(thresholds, beta, width - 1 - at, permuted.now(), state, word, value, on, total)
    state[0, 0, ..., 0] ^= np.uint64(LEAF)
    payload_levels.generate_leaf(thresholds, beta, min(width, leaf), permuted.now(), state, leaves, on, total)


def _evaluate_by_library(
    permutation: Permutation,
    x: Integers,
    seed: Octets,
    key: Octets,
    shares: Integers,
    party: int,
    width: int,
    leaf: int,
) -> None:
    n, points, lanes = shares.shape
    words, values, leaves = payload_levels.parts(key, n, levels(width, lanes), lanes, leaf)
    numbers, owner = x.reshape(-1).view(np.uint64), np.repeat(np.arange(n), points)
    state = np.stack([seeds_of(seed)[owner]] * 2)  # [child or payload, n points, 2]
    state[..., 0] ^= (numbers >> np.uint64(width - 1)) & np.uint64(1) if width > leaf else np.uint64(LEAF)
    state[1, :, 0] ^= np.uint64(PAYLOAD)
    permuted = Permuted(permutation, state)
    on, total = np.full_like(numbers, party), np.zeros((len(numbers), lanes), dtype=np.int64)
    for at, (word, value) in enumerate(zip(words, values, strict=True)):
        payload_levels.evaluate_level(
            numbers, owner, width - 1 - at, leaf, permuted.now(), state, word, value, on, total
        )
    rest, results = min(width, leaf), shares.reshape(-1, lanes)
    payload_levels.evaluate_leaf(numbers, owner, party, rest, permuted.now(), state, leaves, on, total, results)
