"""Selection equals sorting in the clear, and opened values can be simulated, with and without ties."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from parties.decoding.clusters import Clustering
from parties.decoding.program import Program, parallel, run
from parties.engines.fss.arithmetic import gates
from parties.engines.fss.cost.simulation import Simulation, share, value_of
from parties.engines.fss.randomness.source import Source
from parties.engines.fss.topk import selection
from parties.engines.plain import PlainEngine
from parties.metering.meter import StageMeter

PLAIN = PlainEngine(StageMeter())


def drawn(shape: tuple[int, ...], seed: int, *, ties: bool) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randint(0, 3, shape, generator=generator) if ties else torch.randn(shape, generator=generator)
    ).double()


@settings(max_examples=15, deadline=None)
@given(
    st.integers(12, 120), st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.floats(0.05, 0.6), st.booleans(), st.integers(0, 99)
)
def test_two_levels_select_and_restore_as_in_the_clear(
    tokens: int, coarse_share: float, fine_share: float, ties: bool, seed: int
) -> None:
    clusters = Clustering(tokens, 4, 8)
    k_coarse, k_fine = clusters.top_k(coarse_share, fine_share)
    if not k_fine:
        return
    coarse = drawn((4, len(clusters.coarse_candidates)), seed, ties=ties)
    fine = drawn((4, len(clusters.fine_candidates)), seed + 1, ties=ties)
    blocks = drawn((4, len(clusters.fine_candidates), 3), seed + 2, ties=False)

    def program(source: Source) -> Program[Any]:
        values = []
        for numbers in (coarse, fine, blocks):
            values.append((yield from gates.open_(share(source, numbers, 8.0))))
        selected = yield from selection.top_two_levels(values[0], values[1], clusters.parents, k_coarse, k_fine)
        fetched = yield from gates.open_(selected.fetch(values[2]))
        return fetched, (yield from gates.open_(selected.put_back(fetched)))

    first, second = Simulation(seed).run(program)
    fetched, back = (value_of(a, b) for a, b in zip(first, second, strict=True))
    index = run(PLAIN.top_clusters(coarse, fine, clusters.parents, k_coarse, k_fine)).index
    rows = torch.arange(4).unsqueeze(1)
    assert torch.allclose(fetched.sum(1), blocks[rows, index].sum(1), atol=1e-3)
    expected = torch.zeros_like(blocks)
    expected[rows, index] = blocks[rows, index]
    assert torch.allclose(back, expected, atol=1e-4)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("count", [1, 7, 30])
def test_kept_rows_stay_in_order(ties: bool, count: int) -> None:
    scores, rows = drawn((30,), 5, ties=ties), drawn((2, 30, 5), 6, ties=False)

    def program(source: Source) -> Program[Any]:
        keys = yield from gates.open_(share(source, scores, 8.0))
        values = yield from gates.open_(share(source, rows, 8.0))
        flags = yield from selection.kept_flags(selection.distinct(keys), count)
        return (yield from selection.compact(flags, count, [values]))[0]

    simulation = Simulation()
    result = value_of(*simulation.run(program))
    expected = run(PLAIN.compact(run(PLAIN.keep_top(scores, count)), [rows]))[0]
    assert torch.allclose(result, expected, atol=1e-4)
    assert simulation.cost.rounds == 2 + 2 + 4


INPUTS = {
    "rising": torch.arange(4.0),
    "falling": -torch.arange(4.0),
    "all equal": torch.zeros(4),
    "two ties": torch.tensor([1.0, 0.0, 1.0, 0.0]),
}


def chi_square(counts: Counter[Any], kinds: int, total: int) -> float:
    expected = total / kinds
    return sum((count - expected) ** 2 / expected for count in counts.values()) + (kinds - len(counts)) * expected


@pytest.mark.parametrize("name", INPUTS)
def test_opened_bits_and_places_are_those_of_a_random_ranking_for_all_scores(name: str) -> None:
    heads = 2400
    scores = INPUTS[name].double().expand(heads, 4)

    def program(source: Source) -> Program[Any]:
        keys = yield from gates.open_(share(source, scores, 8.0))
        shuffle = selection.draw(source, heads, 4)
        shuffled = yield from gates.open_(shuffle.apply(selection.distinct(keys).reshape(heads, 4, 1)))
        return (yield from selection.top_k_places(shuffled.reshape(heads, 4), 2))

    simulation = Simulation()
    places, _ = simulation.run(program)
    (packed,) = simulation.opened[-1]
    bits = np.unpackbits(packed, count=heads * 6).reshape(heads, 6)
    rankings = Counter(map(tuple, bits.tolist()))
    assert len(rankings) == 24, "the bits of four values in random order are those of 24 rankings"
    assert chi_square(rankings, 24, heads) < 23 + 6 * np.sqrt(2 * 23)
    pairs = Counter(map(tuple, places.tolist()))
    assert chi_square(pairs, 6, heads) < 5 + 6 * np.sqrt(2 * 5)


@pytest.mark.parametrize("name", INPUTS)
def test_both_rankings_of_two_levels_are_random_ones_and_independent(name: str) -> None:
    """Two of three coarse clusters, with two children each: then a ranking of the four children."""
    heads, fine = 3000, torch.cat([INPUTS[name], INPUTS[name][:2]]).double()

    def program(source: Source) -> Program[Any]:
        coarse, children = yield from parallel(
            gates.open_(share(source, INPUTS[name][:3].double().expand(heads, 3), 8.0)),
            gates.open_(share(source, fine.expand(heads, 6), 8.0)),
        )
        return (yield from selection.top_two_levels(coarse, children, [0, 0, 1, 1, 2, 2], 2, 2))

    simulation = Simulation()
    simulation.run(program)
    packed = [opened[0] for opened in simulation.opened if opened[0].dtype == torch.uint8]
    sizes = (3, 6)
    first, second = (
        np.unpackbits(bits, count=heads * size).reshape(heads, size) for bits, size in zip(packed, sizes, strict=True)
    )
    rankings = Counter((tuple(a), tuple(b)) for a, b in zip(first.tolist(), second.tolist(), strict=True))
    kinds = 6 * 24
    assert len(rankings) <= kinds
    assert chi_square(rankings, kinds, heads) < kinds - 1 + 6 * np.sqrt(2 * (kinds - 1))


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.slow
def test_opened_destinations_are_a_random_permutation(name: str) -> None:
    seen: Counter[Any] = Counter()
    total = 360
    for seed in range(total):

        def program(source: Source) -> Program[Any]:
            keys = yield from gates.open_(share(source, INPUTS[name][:3], 8.0))
            flags = yield from selection.kept_flags(selection.distinct(keys), 1)
            return (yield from selection.compact(flags, 1, [keys.reshape(1, 3, 1)]))

        simulation = Simulation(seed)
        simulation.run(program)
        (destinations,) = simulation.opened[-2]
        seen[tuple(destinations.reshape(-1).tolist())] += 1
    assert set(seen) <= {(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)}
    assert chi_square(seen, 6, total) < 5 + 6 * np.sqrt(2 * 5)
