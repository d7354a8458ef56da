"""The trees of `prefix_dpf`: levels as in `bit_trees`, whose payload is not used, and tables at some of the nodes.

None of the loops branches on a secret of a computing party. The dealer's read its own tables at indices that only the
dealer knows. Those that evaluate or generate whole trees allocate nothing.
"""

from typing import Any

import numpy as np
from numba import carray

from parties.engines.fss.kernels.aes_instructions import compiled_with_aes, permute, stack_words
from parties.engines.fss.kernels.bit_trees import evaluate_level, generate_level
from parties.engines.fss.kernels.compiled import compiled
from parties.engines.fss.kernels.loops import Integers, Octets, Words
from parties.engines.fss.kernels.payload_levels import PAYLOAD

CELL_BITS = 7  # of a table's cells
REST_BITS = 8  # below a cell
STEP = 2  # bits between the levels of two tables
ENTRIES = 2 << CELL_BITS  # each cell without a carry, and with one
FANS = (8, 8, 4)  # children on the way from a node to the entries of its table: 8 tweaks have room in a seed
MOST_TABLES = 32
_POINTS = 2 * MOST_TABLES
_POINT_WORDS, _ENTRY_WORDS = 2 * _POINTS, 4 * ENTRIES


@compiled("Tuple((uint64[:, :, ::1], int64[:, :, :, ::1]))(uint8[::1], int64, int64, int64)")
def parts(key: Octets, n: Any, levels: Any, tables: Any) -> Any:
    """Returns views: correction words, [levels, n, 2], and corrections of the tables, [n, tables, ENTRIES, 2]."""
    words = levels * n * 16
    return (
        key[:words].view(np.uint64).reshape(levels, n, 2),
        key[words:].view(np.int64).reshape(n, tables, ENTRIES, 2),
    )


@compiled("void(int64, int64[:, ::1], int64, int64, int64[:, ::1])")
def turn_table(mask: Any, table: Integers, level: Any, first: Any, turned: Integers) -> None:
    """Turns a table by the mask of a number, so that it is read at a public place.

    With the mask's digit v, entry u is for the cell u - v if the number added to the mask carries nothing into `level`,
    and, in the second half, for the cell u - v + 2^CELL_BITS if it carries one. Cells that an earlier table has are 0.

    Args:
        mask: The mask.
        table: Values and slopes by cell, [ENTRIES, 2].
        level: The table's level.
        first: Whether no table comes before.
        turned: Output: values less the slopes times the mask's rest, and slopes, [ENTRIES, 2].
    """
    start, own = level - CELL_BITS, CELL_BITS - STEP
    digit, rest = (mask >> start) & ((1 << CELL_BITS) - 1), (mask >> (start - REST_BITS)) & ((1 << REST_BITS) - 1)
    for entry in range(ENTRIES):
        shown = entry & ((1 << CELL_BITS) - 1)
        earlier = ((entry >> CELL_BITS) << STEP) + (shown >> own) - (digit >> own)  # as seen from the level below
        cell = entry - digit
        if cell >= 0 and (first or earlier > 1):
            turned[entry, 0], turned[entry, 1] = table[cell, 0] - table[cell, 1] * rest, table[cell, 1]
        else:
            turned[entry, 0] = turned[entry, 1] = 0


@compiled("void(uint64[:, ::1], uint64[:, ::1], int64, uint64[:, ::1])")
def children(permuted: Words, blocks: Words, fan: Any, out: Words) -> None:
    """Prepares the hashes of `fan` children of each hashed block [m, 2], `permuted` ^ `blocks`: [m fan, 2]."""
    for i in range(blocks.shape[0]):
        low, high = (permuted[i, 0] ^ blocks[i, 0]) & ~np.uint64(7), permuted[i, 1] ^ blocks[i, 1]
        for child in range(fan):
            out[i * fan + child, 0], out[i * fan + child, 1] = low ^ np.uint64(child), high


@compiled("void(uint64[:, ::1], uint64[:, ::1], int64[:, ::1], uint64[:, ::1], int64[:, ::1])")
def correct_table(permuted: Words, blocks: Words, turned: Integers, on: Words, values: Integers) -> None:
    """Computes the corrections of a table, [ENTRIES, 2], from its hashed entries, the client's before the server's."""
    sign = np.int64(1) - np.int64(2) * np.int64(on[1, 0])
    for entry in range(ENTRIES):
        for lane in range(2):
            client = np.int64(permuted[entry, lane] ^ blocks[entry, lane])
            server = np.int64(permuted[ENTRIES + entry, lane] ^ blocks[ENTRIES + entry, lane])
            values[entry, lane] = sign * (turned[entry, lane] - client + server)


@compiled("void(int64, int64, uint64[::1])")
def points_of(x: Any, lowest: Any, points: Words) -> None:
    """Returns the points of x, two for each table: x itself, and x less a carry into the table's level."""
    for point in range(points.shape[0]):
        carry = np.uint64(point & 1) << np.uint64(lowest + STEP * (point // 2))
        points[point] = np.uint64(x) - carry


@compiled("int64(int64, int64, int64)")
def entry_of(x: Any, lowest: Any, point: Any) -> Any:
    """Returns the entry of x in the table of a point."""
    start = lowest + STEP * (point // 2) - CELL_BITS
    return ((x >> start) & ((1 << CELL_BITS) - 1)) + ((point & 1) << CELL_BITS)


@compiled("void(uint64[:, ::1], uint64[:, ::1], int64, int64, int64, int64)")
def towards_entries(permuted: Words, blocks: Words, x: Any, lowest: Any, below: Any, fan: Any) -> None:
    """Goes from each point's block to the child towards its entry, of which `below` bits stay; updates the blocks."""
    for point in range(blocks.shape[0]):
        child = np.uint64((entry_of(x, lowest, point) >> below) & (fan - 1))
        blocks[point, 0] = ((permuted[point, 0] ^ blocks[point, 0]) & ~np.uint64(7)) ^ child
        blocks[point, 1] ^= permuted[point, 1]


@compiled("int64(uint64[:, ::1], uint64[:, ::1], int64, int64, uint64[::1], int64[:, :, ::1], int64)")
def total_of(permuted: Words, blocks: Words, x: Any, lowest: Any, on: Words, values: Integers, party: Any) -> Any:
    """Sums a party's shares of value + slope rest over all points of x, by the hashed blocks of their entries."""
    total = np.int64(0)
    for point in range(blocks.shape[0]):
        entry, table, taken = entry_of(x, lowest, point), point // 2, np.int64(on[point])
        value = np.int64(permuted[point, 0] ^ blocks[point, 0]) + taken * values[table, entry, 0]
        slope = np.int64(permuted[point, 1] ^ blocks[point, 1]) + taken * values[table, entry, 1]
        start = lowest + STEP * table - CELL_BITS - REST_BITS
        total += value + slope * ((x >> start) & ((1 << REST_BITS) - 1))
    return total * np.int64(1 - 2 * party)


@compiled_with_aes("void(int64[::1], uint8[:, ::1], uint8[::1], int64[:, ::1], int64[::1], int64, int64, int64)")
def evaluate_trees(
    x: Integers,
    seeds: Octets,
    key: Octets,
    round_keys: Integers,
    shares: Integers,
    party: Any,
    lowest: Any,
    tables: Any,
) -> None:
    """Evaluates all keys, each at its number, as `prefix_dpf.evaluate` does.

    Args:
        x: Public numbers, [n].
        seeds: The party's seeds, [n, 16].
        key: The keys.
        round_keys: AES-128's key schedule, [11, 2].
        shares: Output, [n].
        party: 0 for the client, 1 for the server.
        lowest: Level of the first table.
        tables: Number of tables, at most MOST_TABLES.
    """
    count, top = 2 * tables, lowest + STEP * (tables - 1)
    words, values = parts(key, x.shape[0], top + 1 - lowest, tables)
    own, schedule = seeds.view(np.uint64), round_keys.view(np.uint64)
    state = carray(stack_words(_POINT_WORDS), (_POINTS, 2))[:count]
    permuted = carray(stack_words(_POINT_WORDS), (_POINTS, 2))[:count]
    blocks = carray(stack_words(_POINT_WORDS), (_POINTS, 2))[:count]
    points, on = carray(stack_words(_POINTS), (_POINTS,))[:count], carray(stack_words(_POINTS), (_POINTS,))[:count]
    taken, unused = carray(stack_words(_POINTS), (_POINTS,))[:count], carray(stack_words(_POINTS), (_POINTS,))[:count]
    owner = carray(stack_words(_POINTS), (_POINTS,))[:count].view(np.int64)
    for i in range(x.shape[0]):
        points_of(x[i], lowest, points)
        for point in range(count):
            state[point, 0] = (own[i, 0] & ~np.uint64(7)) ^ ((points[point] >> np.uint64(top)) & np.uint64(1))
            state[point, 1] = own[i, 1]
            on[point], unused[point], owner[point] = np.uint64(party), np.uint64(0), 0
        for level in range(top, lowest - 1, -1):
            permute(state, schedule, permuted)
            evaluate_level(points, owner, level, permuted, state, words[top - level, i : i + 1], on, unused)
            if (level - lowest) % STEP == 0:
                first = 2 * ((level - lowest) // STEP)
                for point in range(first, first + 2):
                    blocks[point, 0] = (state[point, 0] & ~np.uint64(7)) ^ np.uint64(PAYLOAD)
                    blocks[point, 1], taken[point] = state[point, 1], on[point]
        below = CELL_BITS + 1
        for fan in FANS:
            below -= 3 if fan == 8 else 2
            permute(blocks, schedule, permuted)
            towards_entries(permuted, blocks, x[i], lowest, below, fan)
        permute(blocks, schedule, permuted)
        shares[i] = total_of(permuted, blocks, x[i], lowest, taken, values[i], party)


@compiled_with_aes("void(int64[::1], int64[:, :, ::1], uint8[:, ::1], uint8[:, ::1], int64[:, ::1], uint8[::1], int64)")
def generate_trees(
    mask: Integers,
    tables: Integers,
    client: Octets,
    server: Octets,
    round_keys: Integers,
    key: Octets,
    lowest: Any,
) -> None:
    """Generates all keys, as `prefix_dpf.generate` does.

    Args:
        mask: Masks, [n].
        tables: Values and slopes by cell, [tables, ENTRIES, 2].
        client: The client's seeds, [n, 16].
        server: The server's seeds, [n, 16].
        round_keys: AES-128's key schedule, [11, 2].
        key: Output, the keys.
        lowest: Level of the first table.
    """
    top = lowest + STEP * (tables.shape[0] - 1)
    words, values = parts(key, mask.shape[0], top + 1 - lowest, tables.shape[0])
    first, second, schedule = client.view(np.uint64), server.view(np.uint64), round_keys.view(np.uint64)
    both, hashed = carray(stack_words(8), (2, 2, 1, 2)), carray(stack_words(8), (2, 2, 1, 2))
    blocks, permuted = (
        carray(stack_words(_ENTRY_WORDS), (2 * ENTRIES, 2)),
        carray(stack_words(_ENTRY_WORDS), (2 * ENTRIES, 2)),
    )
    wider = carray(stack_words(_ENTRY_WORDS), (2 * ENTRIES, 2))
    turned = carray(stack_words(_ENTRY_WORDS), (2 * ENTRIES, 2))[:ENTRIES].view(np.int64)
    on, unused = carray(stack_words(2), (2, 1)), carray(stack_words(1), (1,))
    for i in range(mask.shape[0]):
        alpha = mask[i : i + 1].view(np.uint64)
        for side in range(2):
            both[side, 0, 0, 0] = (first[i, 0] & ~np.uint64(7)) ^ np.uint64(side)
            both[side, 1, 0, 0] = (second[i, 0] & ~np.uint64(7)) ^ np.uint64(side)
            both[side, 0, 0, 1], both[side, 1, 0, 1] = first[i, 1], second[i, 1]
        on[0, 0], on[1, 0], unused[0] = np.uint64(0), np.uint64(1), np.uint64(0)
        for level in range(top, lowest - 1, -1):
            permute(both.reshape(4, 2), schedule, hashed.reshape(4, 2))
            generate_level(alpha, level, hashed, both, words[top - level, i : i + 1], on, unused)
            if (level - lowest) % STEP == 0:
                table, count = (level - lowest) // STEP, 2
                for p in range(2):
                    blocks[p, 0], blocks[p, 1] = both[0, p, 0, 0] ^ np.uint64(PAYLOAD), both[0, p, 0, 1]
                for fan in FANS:
                    permute(blocks[:count], schedule, permuted)
                    children(permuted[:count], blocks[:count], fan, wider)
                    count *= fan
                    blocks[:count] = wider[:count]
                permute(blocks, schedule, permuted)
                turn_table(mask[i], tables[table], level, table == 0, turned)
                correct_table(permuted, blocks, turned, on, values[i, table])
