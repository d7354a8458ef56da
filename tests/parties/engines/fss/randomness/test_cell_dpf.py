"""Shares of the counts of cells: right for every mask and place, and nothing to either party alone."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from parties.engines.fss.kernels.cell_trees import CELLS, KEY_BYTES, LEVELS, TOGETHER
from parties.engines.fss.randomness import cell_dpf
from parties.engines.fss.randomness.dcf import Permutation
from tests.helpers.comparisons import seeds

PERMUTATION = Permutation(b"a session's key!")


def evaluated(places: Tensor, alpha: Tensor, permutation: Permutation = PERMUTATION) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the key and both parties' shares."""
    own = seeds(alpha.numel())
    key = cell_dpf.generate(permutation, alpha.reshape(-1), *own)
    first, second = (cell_dpf.evaluate(permutation, party, places, seed, key) for party, seed in enumerate(own))
    return key, first, second


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, CELLS, shape))


@pytest.mark.parametrize("n", [1, TOGETHER, 2 * TOGETHER + 5])
def test_counts_are_those_of_the_cells(n: int) -> None:
    places, alpha = drawn(3, n), drawn(3, n, seed=1)
    key, first, second = evaluated(places, alpha)
    counts = torch.nn.functional.one_hot((places - alpha) % CELLS, CELLS).sum(1)
    assert torch.equal(first + second, counts << cell_dpf.SPARE_BITS)
    assert len(key) == 3 * n * KEY_BYTES


def test_every_cell_is_found_under_every_mask() -> None:
    alpha, places = torch.arange(CELLS).repeat(CELLS), torch.arange(CELLS).repeat_interleave(CELLS)
    _, first, second = evaluated(places.reshape(-1, 1), alpha)
    assert torch.equal((first + second).argmax(1), (places - alpha) % CELLS)
    assert ((first + second).sum(1) == 1 << cell_dpf.SPARE_BITS).all()


def test_a_processor_without_aes_gives_the_same() -> None:
    places, alpha = drawn(2, 9), drawn(2, 9, seed=1)
    by_library = evaluated(places, alpha, Permutation(PERMUTATION.key, instructions=False))
    assert all(torch.equal(a, b) for a, b in zip(evaluated(places, alpha), by_library, strict=True))


@pytest.mark.parametrize("cell", [0, 77])
def test_the_key_and_a_share_look_random(cell: int) -> None:
    count = 300
    key, first, second = evaluated(drawn(count, 1), torch.full((count,), cell))
    leaves = key[16 * LEVELS * count :].view(torch.int32)
    words = key[: 16 * LEVELS * count].view(torch.int64)
    for part, low, high in (
        (leaves, 0, 30),
        (words[::2], 3, 64),
        (words[1::2], 0, 64),
        (first, 34, 64),
        (second, 34, 64),
    ):
        bits = (part.reshape(-1, 1).long() >> torch.arange(low, high)) & 1
        deviation = (bits.double().mean(0) - 0.5).abs() * 2 * math.sqrt(len(bits))
        assert deviation.max() < 6, "each bit is one half of the time"


def test_a_changed_key_changes_the_result() -> None:
    places, alpha, own = drawn(1, 1), drawn(1, seed=1), seeds(1)
    key = cell_dpf.generate(PERMUTATION, alpha, *own)
    second = cell_dpf.evaluate(PERMUTATION, 1, places, own[1], key)
    right, wrong = (cell_dpf.evaluate(PERMUTATION, 0, places, own[0], k) + second for k in (key, key ^ 1))
    assert int((right != 0).sum()) == 1
    assert int((wrong != 0).sum()) > CELLS // 2
