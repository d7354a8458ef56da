"""The declared cost of each protocol of the engine, and a program to measure it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from parties.decoding.program import Program, parallel
from parties.engines.fss.arithmetic import gates
from parties.engines.fss.arithmetic.embedding import parts_of
from parties.engines.fss.arithmetic.embedding import rows as embedded_rows
from parties.engines.fss.arithmetic.matrices import ServerMatrix
from parties.engines.fss.arithmetic.multiplication import multiply, select
from parties.engines.fss.arithmetic.values import Masked
from parties.engines.fss.compare.signs import below_edges, count_below, negative
from parties.engines.fss.functions import softmax, tables
from parties.engines.fss.functions.activation import activation, gated_activation
from parties.engines.fss.functions.ladders import ladder_of
from parties.engines.fss.functions.norm import normalise, row_roots, scaled_after, to_norm
from parties.engines.fss.functions.raw_scores import raw_scores
from parties.engines.fss.randomness.constants import Known
from parties.engines.fss.randomness.source import CLIENT
from parties.engines.fss.topk import maximum, selection
from parties.engines.limits import FEW_ROWS

How = Literal["dcf", "prefix"]


@dataclass(frozen=True)
class Count:
    """Rounds, payload bytes that each party sends online, and offline bytes to the client and to the server."""

    rounds: int = 0
    online: int = 0
    client: int = 0
    server: int = 0

    def __add__(self, other: "Count") -> "Count":
        mine, theirs = ((c.rounds, c.online, c.client, c.server) for c in (self, other))
        return Count(*(a + b for a, b in zip(mine, theirs, strict=True)))


def bits(n: int) -> int:
    """Bytes of n packed bits."""
    return -(-n // 8)


def dealt_bits(n: int) -> int:
    """Bytes of n dealt bits; the dealer's stream consists of whole words."""
    return -(-n // 64) * 8


def bytes_in_words(n: int) -> int:
    """Bytes that n bytes take there."""
    return -(-n // 8) * 8


def opened(n: int) -> Count:
    """Ring elements opened in a round."""
    return Count(1, 8 * n)


def sign(n: int, k: int, how: How) -> Count:
    """Signs of n numbers below 2^k."""
    if how == "dcf":
        key = 16 * max(1, k - 6) * n
        return Count(0, 0, key, key + dealt_bits(n))
    total, width = Count(server=dealt_bits(n * k) + dealt_bits(n)), k
    while width > 1:
        pairs, seconds = width // 2, 1 if width == 2 else 2
        total += Count(1, bits(n * pairs * (1 + seconds)), 0, seconds * dealt_bits(n * pairs))
        width -= pairs
    return total


def edges(n: int, count: int, k: int, how: How) -> Count:
    """Comparisons of each of n numbers with the same public edges; differences are below 2^k."""
    one, all_of_them = sign(n, k, how), sign(n * count, k, how)
    if how == "dcf":
        return one
    return all_of_them + Count(server=sum(dealt_bits(n * m) - dealt_bits(n * count * m) for m in (k, 1)))


def counted_edges(n: int, count: int, k: int, how: How) -> Count:
    """For each of n numbers, additive shares of the number of edges above it."""
    if how == "dcf":
        key = bytes_in_words((20 * max(0, k - 2) + 16) * n)
        return Count(0, 0, key, key + 8 * n)
    return edges(n, count, k, how) + Count(1, bits(n * count), 0, 8 * n * count)


def windowed_cost(n: int, windows: int, how: How) -> Count:
    """A function over many orders of magnitude, of n numbers."""
    if how == "dcf" and n <= FEW_ROWS:
        key = 16 * (258 * windows - 1) * n
        return Count(0, 0, key, key)
    inner = n * (windows - 1)
    dealt = Count(1, 16 * n * windows + bits(inner), 0, 304 * n * windows + 80 * inner)
    return dealt + edges(n, windows - 1, 62, how)


@dataclass(frozen=True)
class Protocol:
    """One row of docs/protocols.md.

    Attributes:
        name: The name of the row.
        inputs: Shape, scale and limit of each input.
        program: The counted program; its inputs are already opened.
        cost: The declared cost.
    """

    name: str
    inputs: Sequence[tuple[tuple[int, ...], int, float]]
    program: Callable[..., Program[Any]]
    cost: Callable[[How], Count]


def local(function: Callable[..., Any]) -> Callable[..., Program[Any]]:
    """Makes a program of a local function."""

    def program(*values: Masked) -> Program[Any]:
        return function(*values)
        yield

    return program


def of_sizes(n: int, d: int, count: int) -> list[Protocol]:
    """All protocols, each at these sizes.

    Args:
        n: Number of elements: scores of a row, tokens of a cache or candidates.
        d: Number of columns.
        count: Number of selected elements, below n; number of rows of a batch.
    """
    return [*gates_of(n, d, count), *functions_of(n, d, count), *choices_of(n, d, count)]


def gates_of(n: int, d: int, count: int) -> list[Protocol]:
    """Returns the basic gates."""
    row = ((n,), 16, 8.0)
    return [
        Protocol("opening", [row], lambda x: gates.open_(x.additive()), lambda _: opened(n)),
        Protocol("truncation", [((n,), 32, 8.0)], local(gates.truncate), lambda _: Count(server=8 * n)),
        Protocol("digit", [row], local(lambda x: tables.digit(x, 4, 8)), lambda _: Count(server=8 * n)),
        Protocol("product", [row, row], local(lambda x, y: multiply([x, y])), lambda _: Count(server=8 * n)),
        Protocol(
            "product of three",
            [row] * 3,
            local(lambda x, y, z: multiply([x, y, z])),
            lambda _: Count(server=32 * n),
        ),
        Protocol(
            "matrix product",
            [((3, n, d), 16, 8.0), ((3, d, count), 16, 8.0)],
            local(gates.matmul),
            lambda _: Count(server=24 * n * count),
        ),
        Protocol(
            "product with the server's matrix",
            [((n, d), 16, 8.0)],
            local(lambda x: ServerMatrix(torch.zeros(count, d, dtype=torch.int64)).apply(x, 8.0)),
            lambda _: Count(server=8 * n * count),
        ),
        Protocol("sign", [row], negative, lambda how: sign(n, 19, how)),
        Protocol(
            "comparison with 15 public edges",
            [row],
            lambda x: below_edges(x, torch.arange(15)),
            lambda how: edges(n, 15, 19, how),
        ),
        Protocol(
            "number of 15 public edges above",
            [row],
            lambda x: count_below(x, torch.arange(15)),
            lambda how: counted_edges(n, 15, 19, how),
        ),
        Protocol(
            "bit times number",
            [row],
            lambda x: select_negative(x),
            lambda how: sign(n, 19, how) + Count(1, bits(n), 0, 16 * n),
        ),
        Protocol(
            "look-up of eight bits",
            [row],
            local(lambda x: tables.look_up(x.source, x.public, x.mask, 8, EIGHT_BITS)),
            lambda _: Count(server=32 * n),
        ),
    ]


EIGHT_BITS = tables.Tables(np.ones((1, 1, 256), dtype=np.int64))


def select_negative(x: Masked) -> Program[Any]:
    """Selects negative numbers; others become zero."""
    return select((yield from gates.xor_bits(x.source, (yield from negative(x)))), [[x]])


def functions_of(n: int, d: int, count: int) -> list[Protocol]:
    """Non-linear functions; `count` rows of n scores, n rows of d columns."""
    scores = ((count, n), 32, 64.0)
    return [
        Protocol("SiLU, GELU, cap", [((n,), 16, 64.0)], lambda x: activation(x, "silu"), lambda _: activation_cost(n)),
        Protocol(
            "SiLU, GELU times a number",
            [((n,), 16, 64.0), ((n,), 16, 8.0)],
            lambda x, y: gated_activation(x, y, "silu"),
            lambda _: activation_cost(n) + Count(server=8 * n + 40 * n),
        ),
        Protocol(
            "RMS norm",
            [((n, d), 16, 2.0**10)],
            lambda x: normalise(to_norm(x, centre=False), 1e-5),
            lambda how: norm_cost(n, d, how),
        ),
        Protocol(
            "RMS norm and a matrix product",
            [((count, d), 16, 2.0**10)],
            lambda x: normalised_product(x, n),
            lambda how: (
                Count(server=8 * count * d)
                + root_cost(count, how)
                + Count(0, 8 * count * n, 0, 8 * count * n)
                + Count(1, 8 * count * n, 0, 8 * count * (1 + 2 * n))
            ),
        ),
        Protocol(
            "scores before a norm",
            [((1, 4 * d), 29, 64.0), ((1, n, d), 16, 8.0), ((1,), 36, 8.0)],
            scored,
            lambda _: raw_scores_cost(2, 1, n, d),
        ),
        Protocol("exponentials", [scores], softmax.exponentials, lambda how: exponentials_cost(n, count, how)),
        Protocol(
            "exponentials, counted",
            [((count, 1, n), 32, 64.0)],
            counted_exponentials,
            lambda how: counted_exponentials_cost(n, count, how),
        ),
        Protocol(
            "reciprocal",
            [((n,), 18, 4.0)],
            softmax.reciprocal,
            lambda _: inverse_cost(n) + opened(n) + Count(server=8 * n),
        ),
        Protocol(
            "division by a sum",
            [((n, d), 16, 4.0), ((n,), 18, 4.0)],
            divided,
            lambda _: inverse_cost(n) + opened(n * d) + Count(server=48 * n * d),
        ),
        Protocol(
            "row of the server's table",
            [((1,), 16, 8.0)],
            lambda x: looked_up(x, n, d, count),
            lambda _: embedding_cost(n, d, count),
        ),
    ]


def activation_cost(n: int) -> Count:
    """A look-up of eleven bits in two tables, a digit, a sum of two products with the sign, one truncation."""
    return Count(2, 24 * n, 0, 256 * n + 8 * n + 40 * n + 8 * n)


def norm_cost(n: int, d: int, how: How) -> Count:
    """Sum of squares, inverse root, two parts of it, two products of each element and their truncations."""
    return Count(server=8 * n * d) + root_cost(n, how) + Count(1, 16 * n * d, 0, 16 * n + 32 * n * d)


def root_cost(n: int, how: How) -> Count:
    """Sums of squares and their inverse roots."""
    return opened(n) + Count(server=8 * n) + windowed_cost(n, 16, how) + opened(n)


def normalised_product(x: Masked, width: int) -> Program[Any]:
    """Multiplies rows by a matrix and divides the products by the rows' root mean squares."""
    rows, matrix = to_norm(x, centre=False), ServerMatrix(torch.zeros(width, x.shape[1], dtype=torch.int64))
    root, product = yield from parallel(row_roots(rows, 1e-5), gates.open_(matrix.apply(rows.narrow, 2.0**12)))
    return (yield from gates.open_(scaled_after(product, root, 64.0)))


def scored(row: Masked, keys: Masked, root: Masked) -> Program[Any]:
    """Scores of two query heads that share a key head, and a token's key and value."""
    raw = yield from raw_scores(row, 1, keys.shape[2], lambda x: x * torch.ones(1), [keys])
    place = Known(torch.zeros(keys.shape[1], dtype=torch.int64), 0, 1.0)
    return (yield from raw.scaled(root, place, 64.0))


def raw_scores_cost(heads: int, groups: int, t: int, d: int) -> Count:
    """Row, turned queries and keys, scores of keys and the own one; then two roots, and products with them."""
    cut = Count(server=8 * (heads + 2 * groups) * d + 8 * (heads + groups) * d)
    first = opened(heads * t + heads) + Count(server=8 * (heads * t + heads) + 8 * heads)
    second = opened(heads * t + 2 * groups * d) + Count(server=16 + 8 * heads * t + 8 * 2 * 2 * groups * d)
    own = Count(server=8 * 3 * heads + 8)
    return cut + first + second + own


def exponentials_cost(n: int, rows: int, how: How) -> Count:
    """For rows of n scores: coarse look-ups at a few scales and their sums, comparisons of these, the fine pass."""
    floors, steps = (3, 11) if n <= 2048 else (4, 9) if n <= 4096 else (4, 17) if n <= 32_768 else (5, 15)
    n, sums = n * rows, floors * rows
    shift = Count(1, 8 * floors * n, 0, 40 * n + 8 * sums) + opened(sums)
    return shift + counted_edges(sums, steps, 62, how) + opened(rows) + fine_cost(n)


def counted_exponentials(scores: Masked) -> Program[Masked]:
    """Exponentials with coarse sums by counts."""
    scores.source.softmax = "dpf"
    try:
        return (yield from softmax.exponentials(scores))
    finally:
        scores.source.softmax = "tables"


def counted_exponentials_cost(n: int, rows: int, how: How) -> Count:
    """For rows of n scores: a key per score, sums and comparisons, the fine pass."""
    ladder = ladder_of(n).counted(n)
    keys, sums, width = 96 * n * rows, ladder.floors * rows, 29 if how == "dcf" else 63
    shift = Count(0, 0, keys, keys) + opened(sums) + counted_edges(sums, ladder.steps, width, how) + opened(rows)
    return shift + fine_cost(n * rows)


def fine_cost(n: int) -> Count:
    """For n scores: two look-ups, a digit, their product with the signs, its truncation."""
    return Count(1, 16 * n, 0, 32 * n + 8 * n + 8 * n) + Count(1, 8 * n, 0, 64 * n + 8 * n)


def divided(x: Masked, total: Masked) -> Program[Masked]:
    """Divides rows by a number each."""
    return (yield from softmax.divide(x, (yield from softmax.inverse(total)), 32.0))


def inverse_cost(n: int) -> Count:
    """A look-up of fourteen bits in two tables, a digit, two products with the sign."""
    return Count(1, 16 * n, 0, 2048 * n + 8 * n + 40 * n)


def looked_up(x: Masked, vocab: int, width: int, count: int) -> Program[Any]:
    """Looks up rows of a table at indices that only the client knows."""
    table = ServerMatrix(torch.zeros(width, vocab, dtype=torch.int64))
    return embedded_rows(x.source, table, [0] * count if x.source.rank == CLIENT else None, count, 8.0)


def embedding_cost(vocab: int, width: int, count: int) -> Count:
    """Two one-hot vectors, a row of each part, the row of the selected part."""
    parts = parts_of(vocab, width)
    online = 8 * (vocab // parts + parts + (parts + 1) * width)
    return Count(3, count * online, 0, count * 8 * (parts + 1) * width)


def choices_of(n: int, d: int, count: int) -> list[Protocol]:
    """Returns maximum, selection and compaction; with three heads where there are heads."""
    keys, pairs = ((3, n), 16, 8.0), n * (n - 1) // 2
    return [
        Protocol(
            "maximum",
            [((n,), 16, 8.0)] * 2,
            maximum.elementwise_maximum,
            lambda how: sign(n, 20, how) + Count(1, bits(n), 0, 16 * n) + opened(n),
        ),
        Protocol("argmax", [((n,), 16, 8.0)], maximum.argmax, lambda how: argmax_cost(n, how)),
        Protocol(
            "one-hot rows of the best",
            [keys],
            lambda x: selection.top(selection.distinct(x), count),
            lambda how: (
                Count(server=24 * n * n + 24 * n)
                + opened(3 * n)
                + sign(3 * pairs, key_bits(n), how)
                + Count(1, bits(3 * pairs))
                + opened(3 * count * n)
            ),
        ),
        Protocol(
            "flags of the best",
            [((n,), 16, 8.0)],
            lambda x: selection.kept_flags(selection.distinct(x), count),
            lambda how: (
                Count(server=8 * n * n + 8 * n) + opened(n) + sign(pairs, key_bits(n), how) + Count(1, bits(pairs))
            ),
        ),
        Protocol(
            "compaction in order",
            [((n,), 0, 2.0), ((3, n, d), 16, 8.0)],
            lambda flags, rows: selection.compact(flags.additive(), count, [rows]),
            lambda _: Count(4, 32 * n + 24 * count * d, 0, 8 * n + 8 * n * n + 24 * n * d + 8 * n),
        ),
    ]


def key_bits(n: int) -> int:
    """Bits of a difference of two of n distinct keys made of numbers below 8 with 16 fraction bits."""
    return math.ceil(math.log2(2 * (8 * 2 ** (16 + max(1, (n - 1).bit_length())) + n - 1)))


def argmax_cost(n: int, how: How) -> Count:
    """Counts a level for each halving: signs, with `prefix` their bits, the larger values and their indices."""
    total = Count()
    while n > 1:
        half = n // 2
        if how == "dcf":
            key = bytes_in_words((28 * 20 + 12) * half)
            total += Count(0, 0, key, key + 24 * half) + opened(2 * half)
        else:
            total += sign(half, 20, how) + Count(1, bits(half), 0, 24 * half) + opened(2 * half)
        n -= half
    return total
