"""Embedding look-up: rows of the server's table at indices that only the client knows.

A one-hot vector over the vocabulary costs one opened element per entry of the vocabulary. Cutting the table into a few
parts of equal length costs much less: a one-hot vector of the index within a part fetches that row of *every* part, and
a second one-hot vector selects the part. (Two dimensions instead of one, as in Kushilevitz, Ostrovsky, FOCS 1997.)
"""

from collections.abc import Sequence

import torch

from parties.decoding.program import Program, parallel
from parties.engines.fss.arithmetic.gates import matmul, open_
from parties.engines.fss.arithmetic.inputs import private_input
from parties.engines.fss.arithmetic.matrices import ServerMatrix
from parties.engines.fss.arithmetic.values import Additive, Masked
from parties.engines.fss.randomness.source import Source


def parts_of(vocab: int, width: int) -> int:
    """Returns the number of parts of equal length: the divisor of `vocab` that opens the fewest elements."""
    divisors = [parts for parts in range(1, vocab + 1) if vocab % parts == 0]
    return min(divisors, key=lambda parts: vocab // parts + parts * (1 + width))


def rows(
    source: Source, table: ServerMatrix, tokens: Sequence[int] | None, count: int, limit: float
) -> Program[Masked]:
    """Fetches rows [count, width] of a table [vocab, width], exactly. 3 rounds.

    With p parts 8 (vocab / p + p + (p + 1) width) online bytes each way and 8 (p + 1) width offline bytes, to the
    server, per row: 91 and 41 kB for 49,152 rows of 576 numbers.

    Args:
        source: This party's correlated randomness.
        table: The server's table.
        tokens: Indices of the rows, at the client; None elsewhere.
        count: Number of rows, public.
        limit: Bound on the absolute values in the table.
    """
    width, vocab = table.transposed.shape
    parts = parts_of(vocab, width)
    length = vocab // parts
    places = None if tokens is None else source.own_numbers(lambda: torch.tensor(tokens))
    within, part = yield from parallel(
        open_(_one_hot(source, None if places is None else places % length, count, length)),
        open_(_one_hot(source, None if places is None else places // length, count, parts)),
    )
    cut = ServerMatrix(table.transposed.reshape(width * parts, length))
    candidates = yield from open_(cut.apply(within, limit))
    chosen = matmul(candidates.reshape(count, width, parts), part.reshape(count, parts, 1), limit)
    return (yield from open_(chosen.reshape(count, width)))


def _one_hot(source: Source, places: torch.Tensor | None, count: int, length: int) -> Additive:
    hot = None if places is None else (places.unsqueeze(1) == torch.arange(length, device=places.device)).long()
    return private_input(source, (count, length), hot, 0, 2.0)
