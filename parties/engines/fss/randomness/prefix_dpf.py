"""A function of a masked positive number over many orders of magnitude, additive at once: no communication.

An incremental distributed point function (Boneh, Boyle, Corrigan-Gibbs, Gilboa, Ishai, IEEE S&P 2021, ePrint
2021/017): a key for the mask r gives, at each level s of a tree, shares of a payload where the bits of a public point
from s on are those of r. With X = x + r and y = (X >> s) - (r >> s), which is x >> s or one more, one of the points X
and X - 2^s has these bits if and only if y is 0 or 1. The payload is then a whole table, of which a party expands the
one entry that the following bits of X name: value and slope of the function in the cell in which x must lie. So each
order of magnitude has a table of its own, and all tables but one give shares of zero.

Generator, permutation and what bounds an attack are those of `dcf`; the hash of a table has a tweak of its own.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from parties.engines.fss.kernels import prefix_trees
from parties.engines.fss.kernels.bit_trees import evaluate_level, generate_level
from parties.engines.fss.kernels.call import call
from parties.engines.fss.kernels.loops import Integers, Octets
from parties.engines.fss.kernels.payload_levels import PAYLOAD
from parties.engines.fss.kernels.prefix_trees import CELL_BITS, ENTRIES, FANS, MOST_TABLES, REST_BITS, STEP
from parties.engines.fss.randomness.dcf import Blocks, Permutation, Permuted, seeds_of

LEAST_LEVEL = CELL_BITS + REST_BITS + 1


def levels(tables: int) -> int:
    """Returns the number of levels of a tree."""
    return STEP * (tables - 1) + 1


def key_bytes(tables: int) -> int:
    """Returns the size of a key."""
    return 16 * (levels(tables) + tables * ENTRIES)


def hashes(tables: int) -> int:
    """Returns the number of hashes that evaluate a key."""
    return 2 * tables * (levels(tables) + 1 + len(FANS))


def generate(
    permutation: Permutation, mask: Tensor, tables: Tensor, lowest: int, first: Tensor, second: Tensor
) -> Tensor:
    """Generates the keys, the same for both parties: uint8, [n key_bytes]; see `prefix_trees.parts`.

    Args:
        permutation: The session's permutation.
        mask: Masks, int64, [n].
        tables: Values and slopes per 2^-REST_BITS of a cell, by cell, int64, [tables, ENTRIES, 2].
        lowest: Level of the first table; a number's cell in it is x >> (lowest - CELL_BITS), or one more.
        first: The client's seeds, uint8, [n, 16].
        second: The server's seeds, uint8, [n, 16].

    Raises:
        ValueError: There are too many tables, or too few bits below the first one.
    """
    if len(tables) > MOST_TABLES or lowest < LEAST_LEVEL:
        raise ValueError(f"{len(tables)} tables from 2^{lowest} on; at most {MOST_TABLES}, from 2^{LEAST_LEVEL} on")
    mask, tables = mask.contiguous(), tables.contiguous()
    key = torch.empty(len(mask) * key_bytes(len(tables)), dtype=torch.uint8)
    if permutation.instructions:
        call(prefix_trees.generate_trees, mask, tables, first, second, permutation.round_keys, key, lowest)
    else:
        call(partial(_generate_by_library, permutation), mask, tables, first, second, key, lowest)
    return key


def evaluate(
    permutation: Permutation, party: int, x: Tensor, lowest: int, tables: int, seed: Tensor, key: Tensor
) -> Tensor:
    """Evaluates this party's shares of the function of x = X - r, modulo 2^64: int64, [n].

    Args:
        permutation: The permutation that the key was generated with.
        party: 0 for the client, 1 for the server.
        x: Public numbers X, int64, [n], on the CPU or a GPU.
        lowest: Level of the first table.
        tables: Number of tables.
        seed: This party's seeds, uint8, [n, 16].
        key: The keys of `generate`.
    """
    x = x.contiguous()
    if x.is_cuda:
        from parties.engines.fss.kernels import comparison, prefixes  # Triton, which only a GPU needs

        parts = torch.empty(len(x), 2 * tables, dtype=torch.int64, device=x.device)
        constants = comparison.constants(permutation.key, x.device)
        call(prefixes.evaluate, x, seed, key, *constants, parts, party, lowest)
        return parts.sum(1)
    shares = torch.empty(x.shape, dtype=torch.int64)
    if permutation.instructions:
        call(prefix_trees.evaluate_trees, x, seed, key, permutation.round_keys, shares, party, lowest, tables)
    else:
        call(partial(_evaluate_by_library, permutation), x, seed, key, shares, party, lowest, tables)
    return shares


def _generate_by_library(
    permutation: Permutation, mask: Integers, tables: Integers, first: Octets, second: Octets, key: Octets, lowest: int
) -> None:
    count, top = len(tables), lowest + STEP * (len(tables) - 1)
    words, values = prefix_trees.parts(key, len(mask), top + 1 - lowest, count)
    turned = np.empty((ENTRIES, 2), dtype=np.int64)
    for i in range(len(mask)):
        alpha, unused = mask[i : i + 1].view(np.uint64), np.zeros(1, dtype=np.uint64)
        both = np.stack([np.stack([seeds_of(first[i : i + 1]), seeds_of(second[i : i + 1])])] * 2)
        both[1, ..., 0] ^= np.uint64(1)
        on, permuted = np.array([[0], [1]], dtype=np.uint64), Permuted(permutation, both)
        for level in range(top, lowest - 1, -1):
            generate_level(alpha, level, permuted.now(), both, words[top - level, i : i + 1], on, unused)
            table, rest = divmod(level - lowest, STEP)
            if rest:
                continue
            blocks = both[0, :, 0].copy()
            blocks[:, 0] ^= np.uint64(PAYLOAD)
            for fan in FANS:
                wider: Blocks = np.empty((len(blocks) * fan, 2), dtype=np.uint64)
                prefix_trees.children(Permuted(permutation, blocks).now(), blocks, fan, wider)
                blocks = wider
            prefix_trees.turn_table(mask[i], tables[table], level, table == 0, turned)
            prefix_trees.correct_table(Permuted(permutation, blocks).now(), blocks, turned, on, values[i, table])


def _evaluate_by_library(
    permutation: Permutation,
    x: Integers,
    seed: Octets,
    key: Octets,
    shares: Integers,
    party: int,
    lowest: int,
    tables: int,
) -> None:
    count, top = 2 * tables, lowest + STEP * (tables - 1)
    words, values = prefix_trees.parts(key, len(x), top + 1 - lowest, tables)
    owner, unused, points = np.zeros(count, dtype=np.int64), np.zeros((2, count), dtype=np.uint64), None
    for i in range(len(x)):
        points, on = np.empty(count, dtype=np.uint64), np.full(count, party, dtype=np.uint64)
        prefix_trees.points_of(x[i], lowest, points)
        state, blocks, taken = (
            np.repeat(seeds_of(seed[i : i + 1]), count, 0),
            np.empty((count, 2), np.uint64),
            on.copy(),
        )
        state[:, 0] ^= (points >> np.uint64(top)) & np.uint64(1)
        permuted = Permuted(permutation, state)
        for level in range(top, lowest - 1, -1):
            word = words[top - level, i : i + 1]
            evaluate_level(points, owner, level, permuted.now(), state, word, on, unused[0])
            table, rest = divmod(level - lowest, STEP)
            if not rest:
                here = slice(2 * table, 2 * table + 2)
                blocks[here], taken[here] = state[here], on[here]
        blocks[:, 0] = (blocks[:, 0] & ~np.uint64(7)) ^ np.uint64(PAYLOAD)
        hashed, below = Permuted(permutation, blocks), CELL_BITS + 1
        for fan in FANS:
            below -= fan.bit_length() - 1
            prefix_trees.towards_entries(hashed.now(), blocks, x[i], lowest, below, fan)
        shares[i] = prefix_trees.total_of(hashed.now(), blocks, x[i], lowest, taken, values[i], party)
