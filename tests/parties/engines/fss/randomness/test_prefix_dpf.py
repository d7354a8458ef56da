"""A key that holds a table for each order of magnitude gives the right entry, and nothing to either party alone."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from parties.engines.fss.kernels.prefix_trees import CELL_BITS, ENTRIES, REST_BITS, STEP
from parties.engines.fss.randomness import prefix_dpf
from parties.engines.fss.randomness.dcf import Permutation
from tests.helpers.comparisons import seeds

PERMUTATION = Permutation(b"a session's key!")
LOWEST, TABLES = 20, 16
TOP = LOWEST + STEP * (TABLES - 1)


def identity() -> Tensor:
    """Tables of the number itself, by its cell and its rest."""
    starts = LOWEST + STEP * torch.arange(TABLES)[:, None] - CELL_BITS
    values = torch.arange(ENTRIES)[None] << starts
    return torch.stack([values, (1 << (starts - REST_BITS)).expand_as(values)], -1)


def masks(count: int) -> Tensor:
    """Draws masks, some of which make any number carry, or none."""
    drawn = torch.from_numpy(np.random.default_rng(3).integers(-(2**63), 2**63, count))
    drawn[:4] = torch.tensor([0, -1, 2**63 - 1, -(2**63)])
    return drawn


def evaluated(x: Tensor, mask: Tensor, permutation: Permutation = PERMUTATION) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the key and both parties' shares."""
    own = seeds(len(x))
    key = prefix_dpf.generate(permutation, mask, identity(), LOWEST, *own)
    first, second = (
        prefix_dpf.evaluate(permutation, party, x + mask, LOWEST, TABLES, seed, key) for party, seed in enumerate(own)
    )
    return key, first, second


@pytest.mark.parametrize("number", [0, 1, 2**13, 2**19 + 3, 2**20 - 1, 2**30, 2**41 + 2**20, 2**TOP - 1])
def test_a_number_of_any_magnitude_is_found_under_any_mask(number: int) -> None:
    neighbours = torch.tensor([max(0, number + d) for d in (-1, 0, 1) if number + d < 2**TOP]).repeat(40)
    key, first, second = evaluated(neighbours, masks(len(neighbours)))
    error = (first + second - neighbours).abs()
    cell = torch.maximum(neighbours >> (CELL_BITS - STEP), torch.tensor(2 ** (LOWEST - CELL_BITS)))
    assert (error <= 2 * (cell >> REST_BITS) + 2).all(), "as precise as the rests"
    assert len(key) == len(neighbours) * prefix_dpf.key_bytes(TABLES)


def test_a_processor_without_aes_gives_the_same() -> None:
    x, mask = 2 ** torch.arange(0, 48, 5), masks(10)
    by_library = evaluated(x, mask, Permutation(PERMUTATION.key, instructions=False))
    assert all(torch.equal(a, b) for a, b in zip(evaluated(x, mask), by_library, strict=True))


@pytest.mark.parametrize("number", [5, 2**49])
def test_the_key_and_a_share_look_random(number: int) -> None:
    count = 60
    key, first, second = evaluated(torch.full((count,), number), torch.full((count,), 2**40 + 77))
    bytes_of_words = 16 * count * prefix_dpf.levels(TABLES)
    for part in (key[bytes_of_words:], first.view(torch.uint8), second.view(torch.uint8)):
        bits = np.unpackbits(part.numpy())
        assert abs(float(bits.mean()) - 0.5) * 2 * math.sqrt(bits.size) < 6


def test_a_changed_key_changes_the_result() -> None:
    x, mask, own = torch.tensor([2**33 + 12345]), masks(5)[4:], seeds(1)
    key = prefix_dpf.generate(PERMUTATION, mask, identity(), LOWEST, *own)
    broken = key ^ 1
    right, wrong = (
        prefix_dpf.evaluate(PERMUTATION, 0, x + mask, LOWEST, TABLES, own[0], k)
        + prefix_dpf.evaluate(PERMUTATION, 1, x + mask, LOWEST, TABLES, own[1], key)
        for k in (key, broken)
    )
    assert abs(int(right - x)) < 2**22
    assert abs(int(wrong - x)) > 2**50


def test_tables_that_do_not_fit_are_refused() -> None:
    own = seeds(1)
    with pytest.raises(ValueError, match=r"16 tables from 2\^15 on; at most 32, from 2\^16 on"):
        prefix_dpf.generate(PERMUTATION, torch.zeros(1, dtype=torch.int64), identity(), 15, *own)
