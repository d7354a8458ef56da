"""The compiled loops against references in plain numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from parties.engines.fss.arithmetic import ring
from parties.engines.fss.functions.activation import _function
from parties.engines.fss.functions.curves import curves_of
from parties.engines.fss.functions.softmax import _fine
from parties.engines.fss.functions.tables import Tables

BATCHES = st.sampled_from([(0, 0), (1, 1), (3, 3), (1, 3), (3, 1)])
SEEDS = st.integers(0, 2**32 - 1)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(6, 9), st.integers(0, 6), SEEDS)
def test_rotated_tables_are_summed_over_the_selected_cells(
    tables: int, rows: int, width: int, times: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    length, n = 1 << width, rows * times
    values = np.array([[cells(generator, length) for _ in range(rows)] for _ in range(tables)])
    bits = generator.integers(0, 2, (n, length), dtype=np.uint8)
    turn = generator.integers(0, length, n)
    expected = np.zeros((tables, n), dtype=np.int64)
    for i in range(n):
        for j in np.flatnonzero(bits[i]):
            expected[:, i] += values[:, i % rows, (turn[i] - j) % length]
    assert np.array_equal(
        Tables(values).sums(*map(torch.from_numpy, (turn, np.packbits(bits, axis=1)))).numpy(), expected
    )


def cells(generator: np.random.Generator, length: int) -> NDArray[np.int64]:
    """Random cells, some of them zeros and on a straight line, as an activation's, anywhere on the circle."""
    made = generator.integers(-(2**63), 2**63, length)
    zeros, line = generator.integers(0, length + 1, 2) * generator.integers(0, 2, 2)
    made[:zeros] = 0
    value, step = generator.integers(-(2**63), 2**63, 2)
    with np.errstate(over="ignore"):
        made[max(zeros, length - line) :] = value + step * np.arange(min(line, length - zeros))
    return np.roll(made[:: generator.choice((-1, 1))], generator.integers(length))


@pytest.mark.parametrize(
    ("tables", "curve", "line"),
    [
        (_function("silu", 13, 20, 64.0).tables, (557, 237), (745, 905)),
        (_fine(8, -251, 1.0, 18), (18,), (0,)),  # a line of fewer than 64 cells is not worth its sum
        (Tables(np.zeros((1, 1, 64), np.int64)), (0,), (0,)),
        (Tables(np.full((1, 1, 64), 7)), (0,), (64,)),
        (Tables((np.arange(64) ** 2)[None, None]), (63,), (0,)),
    ],
)
def test_most_cells_of_a_table_are_on_no_curve(tables: Tables, curve: tuple[int, ...], line: tuple[int, ...]) -> None:
    _, lines = curves_of(tables.values)
    assert [tuple(lines[:, 0, field]) for field in (1, 3)] == [curve, line]


def test_a_table_shorter_than_a_word_of_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="tables of 32 cells; at least 64"):
        Tables(np.zeros((1, 1, 32), np.int64))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 9), st.integers(1, 70), st.integers(1, 9), SEEDS)
def test_products_wrap_as_the_ring_does(n: int, inner: int, out: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, matrix = (torch.randint(-(2**63), 2**63 - 1, (rows, inner), generator=generator) for rows in (n, out))
    assert ring.vector_matrix(x, matrix).tolist() == wrapped(x, matrix.T)


@settings(max_examples=40)
@given(BATCHES, st.integers(0, 4), st.integers(1, 40), st.integers(1, 9), st.booleans(), SEEDS)
def test_batched_products_wrap_for_every_layout_of_the_second(
    batches: tuple[int, int], n: int, inner: int, out: int, columns: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-(2**63), 2**63 - 1, (batches[0], inner, n), generator=generator).transpose(1, 2)
    y = torch.randint(-(2**63), 2**63 - 1, (batches[1], out, inner), generator=generator).transpose(1, 2)
    product = ring.matmul(x, y if columns else y.contiguous())
    batch = max(batches)
    assert product.shape == (batch, n, out)
    pairs = zip(x.expand(batch, -1, -1), y.expand(batch, -1, -1), strict=True)
    assert product.tolist() == [wrapped(*pair) for pair in pairs]


@pytest.mark.parametrize("y", [(2, 4, 5), (3, 7, 5)])
def test_products_of_other_shapes_are_refused(y: tuple[int, ...]) -> None:
    with pytest.raises((ValueError, RuntimeError), match=r"they must be equal|must match"):
        ring.matmul(torch.zeros(2, 3, 7, dtype=torch.int64), torch.zeros(y, dtype=torch.int64))


def test_a_vector_of_another_length_than_the_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match="inner dimensions of 7 and 8"):
        ring.vector_matrix(torch.zeros(1, 7, dtype=torch.int64), torch.zeros(5, 8, dtype=torch.int64))


def wrapped(x: torch.Tensor, y: torch.Tensor) -> list[list[int]]:
    """Multiplies two matrices in exact integers and reduces the result to the ring."""
    exact = x.numpy().astype(object) @ y.numpy().astype(object)
    return [[(int(number) + 2**63) % 2**64 - 2**63 for number in row] for row in exact]


def test_a_row_that_is_a_view_is_multiplied_too() -> None:
    x, matrix = torch.arange(12).reshape(3, 4).T, torch.arange(6).reshape(2, 3)
    assert torch.equal(ring.vector_matrix(x, matrix), x @ matrix.T)


def test_a_matrix_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError):
        ring.vector_matrix(torch.ones(1, 4, dtype=torch.int64), torch.ones(4, 2, dtype=torch.int64).T)
