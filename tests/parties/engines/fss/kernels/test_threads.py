"""Products and keys by several threads."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parties.engines.fss.kernels import loops, threads
from parties.engines.fss.randomness import dcf, payload_dcf
from tests.helpers.comparisons import numbers, seeds


@pytest.mark.parametrize(("columns", "count"), [(7, 2), (7, 3), (2, 2)])
def test_products_by_threads_are_those_of_one(columns: int, count: int) -> None:
    draws = torch.Generator().manual_seed(columns)
    x, y = (torch.randint(-(2**62), 2**62, (2, n, 5), generator=draws).numpy() for n in (3, columns))
    alone, together = (torch.zeros(2, 3, columns, dtype=torch.int64).numpy() for _ in range(2))
    loops.products_by_columns(x, y, alone, 0, columns)
    for _ in range(2):
        together[:] = 0
        threads.products_by_columns(x, y, together, count)
        assert (together == alone).all()


@pytest.mark.parametrize(("start", "stop"), [(0, 11), (3, 11), (2, 6), (5, 7), (4, 4)])
def test_a_row_is_multiplied_by_a_part_of_the_columns(start: int, stop: int) -> None:
    draws = torch.Generator().manual_seed(stop)
    x, y = (torch.randint(-(2**63), 2**63 - 1, (2, n, 5), generator=draws).numpy() for n in (1, 11))
    product = torch.zeros(2, 1, 11, dtype=torch.int64).numpy()
    loops.products_by_columns(x, y, product, start, stop)
    expected = x @ y.transpose(0, 2, 1)
    expected[:, :, :start] = expected[:, :, stop:] = 0
    assert (product == expected).all()


@given(rows=st.integers(1, 3 * loops.PAIRED_ROWS), width=st.integers(1, 12), columns=st.integers(1, 40), data=st.data())
def test_products_of_several_rows_are_exact_modulo_2_to_the_64(
    rows: int, width: int, columns: int, data: st.DataObject
) -> None:
    """Also where halves are summed in pairs, and where numbers wrap around."""
    start = data.draw(st.integers(0, columns), label="start")
    stop = data.draw(st.integers(start, columns), label="stop")
    draws = torch.Generator().manual_seed(width * columns)
    x, y = (torch.randint(-(2**63), 2**63 - 1, (2, n, width), generator=draws).numpy() for n in (rows, columns))
    x[0, 0], y[0, 0] = -(2**63), 2**63 - 1
    product = torch.full((2, rows, columns), 5).numpy()
    loops.products_by_columns(x, y, product, start, stop)
    expected = x @ y.transpose(0, 2, 1)
    expected[:, :, :start] = expected[:, :, stop:] = 5
    assert (product == expected).all()


@pytest.mark.parametrize(("batch", "count"), [(7, 3), (2, 2)])
def test_products_by_rows_are_split_by_the_batch(batch: int, count: int) -> None:
    draws = torch.Generator().manual_seed(batch)
    x, y = (torch.randint(-(2**62), 2**62, (batch, n, m), generator=draws).numpy() for n, m in ((3, 5), (5, 4)))
    alone, together = (torch.ones(batch, 3, 4, dtype=torch.int64).numpy() for _ in range(2))
    loops.products_by_rows(x, y, alone)
    threads.products_by_rows(x, y, together, count)
    assert (together == alone).all()


@pytest.mark.parametrize(
    ("columns", "elements", "limit", "found"),
    [(8, threads.LEAST // 2, 4, 1), (8, 3 * threads.LEAST, 4, 3), (2, 9 * threads.LEAST, 4, 2), (8, 9**9, 1, 1)],
)
def test_a_thread_is_used_where_the_matrix_is_worth_its_start(
    columns: int, elements: int, limit: int, found: int
) -> None:
    assert threads.worthwhile(columns, elements, limit) == found


def test_keys_by_threads_are_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    permutation, own = dcf.Permutation(bytes(range(dcf.PERMUTATION_KEY_BYTES))), seeds(70)
    alpha, beta = numbers(33, 70), numbers(32, 70, 2)

    def generated() -> list[torch.Tensor]:
        return [
            dcf.generate(permutation, alpha, 33, *own),
            payload_dcf.generate(permutation, alpha, beta, 33, *own),
        ]

    alone = generated()
    monkeypatch.setattr(threads, "LEAST_KEYS", 20)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert all(map(torch.equal, generated(), alone))
