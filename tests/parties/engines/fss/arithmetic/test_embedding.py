"""Look-ups of secret tokens in the server's secret table: exact, and at the stated cost."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parties.decoding.program import Program
from parties.engines.fss.arithmetic import ring
from parties.engines.fss.arithmetic.embedding import parts_of, rows
from parties.engines.fss.arithmetic.matrices import ServerMatrix
from parties.engines.fss.cost.simulation import Simulation, value_of
from parties.engines.fss.randomness.source import CLIENT, DEALER, SERVER, Source


def table_of(source: Source, numbers: torch.Tensor) -> ServerMatrix:
    """The table [vocab, width] as each party holds it."""
    mask = torch.randint(-(2**62), 2**62, numbers.T.shape, generator=torch.Generator().manual_seed(9))
    weight = ring.encode(numbers.T.contiguous())
    matrix = {DEALER: mask, SERVER: weight, CLIENT: weight - mask}[source.rank]
    return ServerMatrix(matrix.to(source.device))


def look_up(numbers: torch.Tensor, tokens: list[int]) -> tuple[Simulation, torch.Tensor]:
    simulation = Simulation(3)

    def program(source: Source) -> Program[Any]:
        own = tokens if source.rank == CLIENT else None
        return (yield from rows(source, table_of(source, numbers), own, len(tokens), 8.0))

    return simulation, value_of(*simulation.run(program))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 200), st.integers(1, 24), st.data())
def test_rows_are_exact_for_every_table(vocab: int, width: int, data: st.DataObject) -> None:
    tokens = data.draw(st.lists(st.integers(0, vocab - 1), min_size=1, max_size=6))
    numbers = torch.randint(-(2**18), 2**18, (vocab, width), generator=torch.Generator().manual_seed(vocab)) / 2**16
    _, found = look_up(numbers, tokens)
    assert torch.equal(found, numbers[tokens].double())


def test_a_row_costs_what_its_docstring_states() -> None:
    count, vocab, width = 5, 96, 8
    parts = parts_of(vocab, width)
    assert parts == 3
    simulation, _ = look_up(torch.zeros(vocab, width), [0, 95, 7, 7, 31])
    cost = simulation.cost
    assert cost.rounds == 3
    assert cost.online_bytes == count * 8 * (vocab // parts + parts + (parts + 1) * width)
    assert cost.offline_bytes == (0, count * 8 * (parts + 1) * width)


@pytest.mark.parametrize(("vocab", "width", "parts"), [(49_152, 576, 8), (50_257, 768, 29), (97, 48, 1)])
def test_the_table_is_cut_where_the_fewest_numbers_are_opened(vocab: int, width: int, parts: int) -> None:
    assert parts_of(vocab, width) == parts
    opened = {p: vocab // p + p * (1 + width) for p in range(1, vocab + 1) if vocab % p == 0}
    assert opened[parts] == min(opened.values()) <= vocab + 1 + width


def test_opened_values_do_not_depend_on_the_tokens() -> None:
    shapes = []
    for tokens in ([0, 0, 0], [95, 3, 50]):
        simulation, _ = look_up(torch.ones(96, 8), tokens)
        shapes.append([[tuple(part.shape) for part in opened] for opened in simulation.opened])
    assert shapes[0] == shapes[1]
