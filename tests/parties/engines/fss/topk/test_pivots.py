"""Top-k by pivots: the result of comparing all pairs, at the stated cost; no opened bit depends on the values."""

import math
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from parties.decoding.program import Program
from parties.engines.fss.arithmetic import gates
from parties.engines.fss.cost.simulation import Simulation, share, value_of
from parties.engines.fss.randomness.source import Source
from parties.engines.fss.topk import selection
from parties.engines.fss.topk.pivots import ROUNDS, PivotsMissed, _contested, _gaps, top_k_by_pivots
from parties.engines.fss.topk.sample_sizes import ROW_MISS_BITS, SampleSizes, gap_sizes, sample_sizes
from tests.helpers.declared import Count, How, Protocol, bits, key_bits, opened, sign
from tests.parties.engines.fss.test_declared import dry_run, simulated

ROWS, N = 2000, 24
SMALL = SampleSizes(N, count=8, rows=ROWS, sample=8, pivots=(1, 4), pairs=60 * ROWS)


def drawn(values: str, rows: int, n: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return {
        "ties": torch.randint(0, 4, (rows, n), generator=generator).double(),
        "equal": torch.zeros(rows, n).double(),
        "rising": (torch.arange(n).double() / n).expand(rows, n),
    }[values]


@pytest.mark.parametrize(("rows", "n", "count"), [(1, 24, 1), (9, 24, 10), (3, 60, 59), (2, 130, 26)])
@pytest.mark.parametrize("values", ["ties", "equal", "rising"])
def test_pivots_select_the_highest_and_of_equal_ones_the_first(rows: int, n: int, count: int, values: str) -> None:
    scores = drawn(values, rows, n)
    assert selection.pivot_sizes(rows, n, count, "dcf", spare_rounds=True) is not None

    def program(source: Source) -> Program[Any]:
        keys = selection.distinct((yield from gates.open_(share(source, scores, 8.0))))
        return (yield from selection.top(keys, count, spare_rounds=True)).rows

    flags = value_of(*Simulation().run(program)).sum(1)
    best = scores.sort(dim=1, descending=True, stable=True).indices[:, :count]
    assert torch.equal(flags, torch.zeros(rows, n).double().scatter(1, best, 1.0))


def test_few_candidates_are_compared_in_pairs_for_the_sake_of_rounds() -> None:
    assert selection.pivot_sizes(1, 511, 100, "dcf", spare_rounds=False) is None
    assert selection.pivot_sizes(1, 512, 100, "dcf", spare_rounds=False) is not None
    assert selection.pivot_sizes(1, 1023, 100, "prefix", spare_rounds=True) is None
    assert selection.pivot_sizes(9, 23, 10, "dcf", spare_rounds=True) is None
    assert selection.pivot_sizes(1, 4096, 4096, "dcf", spare_rounds=True) is None


def declared(sizes: SampleSizes, how: How) -> Count:
    """Counts the flags of the top k by pivots: the shuffle, three batches of signs, pivots and differences remasked."""
    h, n, k = sizes.rows, sizes.n, key_bits(sizes.n)
    compared = h * len(sizes.pivots) * (n - sizes.sample)
    total = Count(server=h * (8 * n * n + 8 * n)) + opened(h * n) + opened(h * len(sizes.pivots)) + opened(sizes.pairs)
    for signs in (h * math.comb(sizes.sample, 2), compared, sizes.pairs):
        total += sign(signs, k, how) + Count(1, bits(signs))
    return total


@pytest.mark.parametrize(
    ("rows", "n", "how"), [(9, 24, "dcf"), (9, 50, "dcf"), (9, 128, "dcf"), (1, 512, "dcf"), (1, 1024, "prefix")]
)
@pytest.mark.parametrize("share_kept", [0.05, 0.5])
def test_pivots_cost_what_they_declare(rows: int, n: int, how: How, share_kept: float) -> None:
    count = max(1, int(n * share_kept))
    sizes = selection.pivot_sizes(rows, n, count, how, spare_rounds=True)
    assert sizes is not None
    assert sizes.comparisons < rows * math.comb(n, 2)
    protocol = Protocol(
        "places of the best by pivots",
        [((rows, n), 16, 8.0)],
        lambda x: selection.shuffled_top_k(selection.distinct(x), count, spare_rounds=True),
        lambda how: declared(sizes, how),
    )
    assert dry_run(protocol, how) == protocol.cost(how)
    if n == 50:
        assert simulated(protocol, how) == protocol.cost(how)
        assert protocol.cost(how).rounds == 1 + ROUNDS


VALUES = {
    "rising": torch.arange(24.0) / 4,
    "falling": -torch.arange(24.0) / 4,
    "equal": torch.zeros(24),
    "ties": torch.tensor([1.0, 0.0, 0.0] * 8),
}


def small(scores: Tensor, seed: int, sizes: SampleSizes = SMALL) -> tuple[Any, list[Any]]:
    """Returns the places that were found, None if the sizes were exceeded, and everything that was opened."""

    def program(source: Source) -> Program[Any]:
        keys = yield from gates.open_(share(source, scores.double().expand(sizes.rows, N), 8.0))
        shuffle = selection.draw(source, sizes.rows, N)
        shuffled = yield from gates.open_(shuffle.apply(selection.distinct(keys).reshape(sizes.rows, N, 1)))
        return (yield from top_k_by_pivots(shuffled.reshape(sizes.rows, N), sizes))

    simulation = Simulation(seed)
    try:
        return simulation.run(program)[0], simulation.opened
    except PivotsMissed:
        return None, simulation.opened


def unpacked(packed: Any, *shape: int) -> Tensor:
    return torch.from_numpy(np.unpackbits(np.asarray(packed), count=math.prod(shape)).reshape(shape))


def pairs_of(sample_bits: Tensor, below: Tensor) -> tuple[Tensor, Tensor, int]:
    """Returns, as everyone can from the first two openings, the row of each pair, its number there, and their count."""
    first, second = torch.triu_indices(SMALL.sample, SMALL.sample, 1)
    loses = torch.zeros(ROWS, SMALL.sample, SMALL.sample, dtype=torch.int64)
    loses[:, first, second], loses[:, second, first] = sample_bits.long(), 1 - sample_bits.long()
    (row, _, _), found = _contested(_gaps(loses.sum(2).argsort(1), below, SMALL), SMALL)
    row = row[:found]
    return row, torch.arange(len(row)) - torch.searchsorted(row, row), int(found)


@pytest.fixture(scope="module")
def of_random_rankings() -> Tensor:
    """The share of ones in the first ten pairs of a row, as a simulator draws them: it ranks numbers of its own."""
    x = torch.rand(ROWS, N, generator=torch.Generator().manual_seed(8)).argsort(1)
    order = (-x[:, : SMALL.sample]).argsort(1)
    below = x[:, SMALL.sample :, None] < x.gather(1, order[:, list(SMALL.pivots)])[:, None]
    (row, first, second), found = _contested(_gaps(order, below.to(torch.uint8), SMALL), SMALL)
    number = torch.arange(int(found)) - torch.searchsorted(row[:found], row[:found])
    return shares_of_ones(number, (x[row, first] < x[row, second])[:found])


def shares_of_ones(number: Tensor, outcomes: Tensor) -> Tensor:
    return torch.stack([outcomes[number == i].double().mean() for i in range(10)])


@pytest.mark.parametrize("name", VALUES)
def test_opened_bits_are_those_of_random_rankings(name: str, of_random_rankings: Tensor) -> None:
    _, seen = small(VALUES[name], 5)
    sample_bits, below = unpacked(seen[2][0], ROWS, 28), unpacked(seen[4][0], ROWS, 16, 2)
    tolerance = 6 * 0.5 / math.sqrt(ROWS)
    assert (sample_bits.double().mean(0) - 0.5).abs().max() < tolerance
    expected = torch.tensor([1 - 2 / 9, 1 - 5 / 9])  # a further value is above the j-th of eight with probability j / 9
    assert (below.double().mean(0) - expected).abs().max() < tolerance
    _, number, found = pairs_of(sample_bits, below)
    last = unpacked(seen[6][0], SMALL.pairs)
    assert (shares_of_ones(number, last[:found]) - of_random_rankings).abs().max() < 1.5 * tolerance
    assert len(set(last[found:].tolist())) == 1, "what is left repeats one pair of the sample"
    assert last[-1] == sample_bits[0, 0]


@pytest.mark.parametrize("name", VALUES)
def test_a_miss_is_as_likely_as_for_random_rankings_whatever_the_values(name: str) -> None:
    sizes, runs = SampleSizes(N, count=8, rows=1, sample=8, pivots=(1, 4), pairs=15), 120
    outcomes = [small(VALUES[name], seed, sizes)[0] for seed in range(runs)]
    assert all(outcome.shape == (1, 8) for outcome in outcomes if outcome is not None)
    dice = np.random.default_rng(4)
    samples = [sorted(dice.permutation(N)[: sizes.sample] + 1) for _ in range(4000)]
    pairs = [math.comb(values_between(N, sizes.count, tuple(sample), sizes.pivots), 2) for sample in samples]
    expected = sum(more > sizes.pairs for more in pairs) / len(pairs)
    missed = sum(outcome is None for outcome in outcomes) / runs
    assert 0.1 < expected < 0.9
    assert abs(missed - expected) < 5 * math.sqrt(expected * (1 - expected) / runs)


def values_between(n: int, count: int, sample: tuple[int, ...], pivots: tuple[int, ...]) -> int:
    """Values that are ranked at the end, if the sample has these ranks among all, from 1."""
    ends = [0, *(sample[place] for place in pivots), n + 1]
    return sum(b - a - 1 for a, b in pairwise(ends) if a < count and count + 1 < b)


@pytest.mark.parametrize("pivots", [(1,), (0, 3), (1, 2, 4)])
def test_gap_sizes_are_those_of_all_samples(pivots: tuple[int, ...]) -> None:
    n, size = 11, 5
    samples = list(combinations(range(1, n + 1), size))
    for count in range(1, n):
        expected = np.bincount([values_between(n, count, s, pivots) for s in samples], minlength=n + 1) / len(samples)
        found = gap_sizes(n, count, size, pivots)
        assert np.allclose(found[1:], expected[1:], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("rows", "n", "count"), [(1, 40, 16), (3, 24, 8), (9, 24, 12), (9, 50, 10)])
def test_sizes_are_exceeded_with_the_declared_probability_at_most(rows: int, n: int, count: int) -> None:
    sizes = sample_sizes(n, count, rows)
    chances = gap_sizes(n, count, sizes.sample, sizes.pivots)
    row = np.zeros(math.comb(n, 2) + 1)
    for size, chance in enumerate(chances):
        row[math.comb(size, 2)] += chance
    row[0] += 1 - row.sum()
    total = np.ones(1)
    for _ in range(rows):
        total = np.convolve(total, row)
    beyond = total[sizes.pairs + 1 :].sum()
    assert beyond < rows * 2.0**-ROW_MISS_BITS
    if rows > 1:
        assert sizes.pairs < rows * sample_sizes(n, count, 1).pairs, "a sum over rows varies less"


@settings(deadline=None, max_examples=15)
@given(st.integers(24, 900), st.floats(0.01, 0.99), st.integers(1, 9))
def test_random_rankings_fit_the_sizes(n: int, share_kept: float, rows: int) -> None:
    sizes = sample_sizes(n, max(1, int(n * share_kept)), rows)
    generator = np.random.default_rng(n)
    for _ in range(10):
        samples = (np.sort(generator.permutation(n)[: sizes.sample]) + 1 for _ in range(rows))
        sizes_of_gaps = (values_between(n, sizes.count, tuple(s.tolist()), sizes.pivots) for s in samples)
        assert sum(math.comb(size, 2) for size in sizes_of_gaps) <= sizes.pairs
