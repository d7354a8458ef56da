"""The compiled loops against what they stand for, in plain numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parties.engines.fss import ring
from parties.engines.fss.tables import Tables

SEEDS = st.integers(0, 2**32 - 1)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(3, 9), st.integers(0, 6), SEEDS)
def test_turned_tables_are_summed_over_the_chosen_cells(
    tables: int, rows: int, width: int, times: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    length, n = 1 << width, rows * times
    values = generator.integers(-(2**63), 2**63, (tables, rows, length))
    bits = generator.integers(0, 2, (n, length), dtype=np.uint8)
    turn = generator.integers(0, length, n)
    expected = np.zeros((tables, n), dtype=np.int64)
    for i in range(n):
        for j in np.flatnonzero(bits[i]):
            expected[:, i] += values[:, i % rows, (turn[i] - j) % length]
    assert np.array_equal(Tables(values).sums(torch.from_numpy(turn), np.packbits(bits, axis=1)).numpy(), expected)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 9), st.integers(1, 70), st.integers(1, 9), SEEDS)
def test_products_wrap_as_the_ring_does(n: int, inner: int, out: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, matrix = (torch.randint(-(2**63), 2**63 - 1, (rows, inner), generator=generator) for rows in (n, out))
    exact = x.numpy().astype(object) @ matrix.numpy().astype(object).T
    expected = [[(int(number) + 2**63) % 2**64 - 2**63 for number in row] for row in exact]
    assert ring.vector_matrix(x, matrix).tolist() == expected


def test_a_row_that_is_a_view_is_multiplied_too() -> None:
    x, matrix = torch.arange(12).reshape(3, 4).T, torch.arange(6).reshape(2, 3)
    assert torch.equal(ring.vector_matrix(x, matrix), x @ matrix.T)


def test_a_matrix_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError):
        ring.vector_matrix(torch.ones(1, 4, dtype=torch.int64), torch.ones(4, 2, dtype=torch.int64).T)
