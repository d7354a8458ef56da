"""Secret-shared histograms without communication: how many of a row's numbers fall into each of 128 cells.

A distributed point function (Boyle, Gilboa, Ishai, CCS 2016, ePrint 2018/707) with additive leaves: the key of a mask
r holds the cell alpha of r, and a party evaluates it at all cells j, which gives shares of [j = alpha]. With the public
cell Y of X = x + r the number lies in the cell Y - alpha, so that the share of cell j counts for the cell Y - j. Shares
of a row's counts are sums of these, modulo 2^30, and whatever is linear in the counts is local work.

The tree is cut two levels early: a seed of the last level is a leaf of four elements, which lie above the control bits.
Generator, permutation and what bounds an attack are those of `dcf`.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from parties.engines.fss.kernels import cell_trees
from parties.engines.fss.kernels.bit_trees import generate_level
from parties.engines.fss.kernels.call import call
from parties.engines.fss.kernels.cell_trees import BLOCKS, CELLS, KEY_BYTES, LANE_BITS, LEVELS
from parties.engines.fss.kernels.loops import Integers, Octets
from parties.engines.fss.randomness.dcf import Permutation, Permuted, seeds_of

SPARE_BITS = 64 - LANE_BITS
"""Counts are multiplied by 2^SPARE_BITS, so that shares modulo 2^30 are shares modulo 2^64."""


def generate(permutation: Permutation, alpha: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Generates the keys, the same for both parties: uint8, [n KEY_BYTES]; see `cell_trees.parts`.

    Args:
        permutation: The session's permutation.
        alpha: Cells of the masks, int64, [n], 0 to CELLS - 1.
        first: The client's seeds, uint8, [n, 16].
        second: The server's seeds, uint8, [n, 16].
    """
    alpha = alpha.contiguous()
    key = torch.empty(len(alpha) * KEY_BYTES, dtype=torch.uint8)
    if permutation.instructions:
        call(cell_trees.generate_trees, alpha, first, second, permutation.round_keys, key)
    else:
        call(partial(_generate_by_library, permutation), alpha, first, second, key)
    return key


def evaluate(permutation: Permutation, party: int, places: Tensor, seed: Tensor, key: Tensor) -> Tensor:
    """Evaluates this party's shares of the counts of each row, times 2^SPARE_BITS: int64, [rows, CELLS].

    Args:
        permutation: The permutation that the key was generated with.
        party: 0 for the client, 1 for the server.
        places: Public cells, int64, [rows, n], 0 to CELLS - 1, on the CPU or a GPU.
        seed: This party's seeds, uint8, [rows n, 16].
        key: The keys of `generate`.
    """
    places = places.contiguous()
    counts = torch.empty(len(places), CELLS, dtype=torch.int64, device=places.device)
    if places.is_cuda:
        from parties.engines.fss.kernels import cells, comparison  # Triton, which only a GPU needs

        constants = comparison.constants(permutation.key, places.device)
        call(cells.evaluate, places, seed, key, *constants, counts, party)
    elif permutation.instructions:
        call(cell_trees.evaluate_trees, places, seed, key, permutation.round_keys, counts, party)
    else:
        call(partial(_evaluate_by_library, permutation), places, seed, key, counts, party)
    return counts << SPARE_BITS


def _generate_by_library(permutation: Permutation, alpha: Integers, first: Octets, second: Octets, key: Octets) -> None:
    words, corrections = cell_trees.parts(key, len(alpha))
    both = np.stack([np.stack([seeds_of(first), seeds_of(second)])] * 2)  # [side, party, n, 2]
    both[1, ..., 0] ^= np.uint64(1)
    unused = np.zeros(len(alpha), dtype=np.uint64)
    on, permuted = np.stack([unused, unused + np.uint64(1)]), Permuted(permutation, both)
    for level, word in enumerate(words):
        bit = LEVELS + 1 - level
        generate_level(alpha.view(np.uint64), bit, permuted.now(), both, word, on, unused)
    cell_trees.correct_leaves(alpha, both, on, corrections)


def _evaluate_by_library(
    permutation: Permutation, places: Integers, seed: Octets, key: Octets, counts: Integers, party: int
) -> None:
    numbers, seeds = places.reshape(-1), seeds_of(seed)
    words, corrections = cell_trees.parts(key, len(numbers))
    turned = np.empty(2 * CELLS, dtype=np.int64)
    counts[:] = 0
    for i, place in enumerate(numbers):
        state, on = np.empty((BLOCKS, 2), dtype=np.uint64), np.full(BLOCKS, party, dtype=np.uint64)
        state[0] = seeds[i]
        for level, word in enumerate(words):
            width = 1 << level
            sides = np.empty((2 * width, 2), dtype=np.uint64)
            cell_trees.sides_of(state, 1, width, sides)
            cell_trees.descend(Permuted(permutation, sides).now(), sides, 1, width, word[i : i + 1], state, on)
        row = counts[i // places.shape[1]]
        cell_trees.add_cells(state, on, corrections[i], place, party, turned, row)
