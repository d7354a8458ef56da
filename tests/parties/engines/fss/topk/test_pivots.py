"""Top-k by pivots: the result of comparing all pairs, at the stated cost; no opened bit depends on the values."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from parties.decoding.program import Program
from parties.engines.fss.arithmetic import gates
from parties.engines.fss.cost.simulation import Simulation, share
from parties.engines.fss.randomness.source import Source
from parties.engines.fss.topk import selection
from parties.engines.fss.topk.pivots import ROUNDS, PivotsMissed, _classes, top_k_by_pivots
from parties.engines.fss.topk.sample_sizes import MISS_BITS, SampleSizes, hypergeometric_quantile, sample_sizes
from tests.helpers.declared import Count, How, Protocol, bits, key_bits, opened, sign
from tests.parties.engines.fss.test_declared import dry_run, simulated

SMALL = SampleSizes(n=24, count=8, sample=8, high=2, low=5, between=12)
ROOMY = SampleSizes(n=24, count=1, sample=8, high=0, low=5, between=24)
"""All values fit between the pivots: nothing is missed."""


def chosen_flags(scores: Tensor, count: int, seed: int = 0) -> Tensor:
    def program(source: Source) -> Program[Any]:
        keys = yield from gates.open_(share(source, scores, 8.0))
        return (yield from selection.kept_flags(selection.distinct(keys), count))

    first, second = Simulation(seed).run(program)
    return torch.as_tensor(first.share + second.share)


@pytest.mark.parametrize("count", [1, 200, 511])
@pytest.mark.parametrize("values", ["ties", "equal", "rising"])
def test_pivots_keep_the_highest_and_of_equal_ones_the_first(count: int, values: str) -> None:
    n = 512
    generator = torch.Generator().manual_seed(3)
    scores = {
        "ties": torch.randint(0, 4, (n,), generator=generator).double(),
        "equal": torch.zeros(n).double(),
        "rising": torch.arange(n).double() / n,
    }[values]
    assert selection.pivot_sizes(n, count, "dcf") is not None
    expected = torch.zeros(n, dtype=torch.int64)
    expected[scores.sort(descending=True, stable=True).indices[:count]] = 1
    assert torch.equal(chosen_flags(scores, count), expected)


def test_few_candidates_are_compared_in_pairs_for_the_sake_of_rounds() -> None:
    assert selection.pivot_sizes(511, 100, "dcf") is None
    assert selection.pivot_sizes(1023, 100, "prefix") is None
    assert selection.pivot_sizes(4096, 4096, "dcf") is None


def declared(sizes: SampleSizes, how: How) -> Count:
    """Counts the flags of the top k by pivots: the shuffle, three batches of signs, pivots and candidates remasked."""
    n, k = sizes.n, key_bits(sizes.n)
    batches = (math.comb(sizes.sample, 2), len(sizes.pivots) * (n - sizes.sample), math.comb(sizes.between, 2))
    total = Count(server=8 * n * n + 8 * n) + opened(n) + opened(len(sizes.pivots)) + opened(sizes.between)
    for signs in batches:
        total += sign(signs, k, how) + Count(1, bits(signs))
    return total


@pytest.mark.parametrize(("n", "how"), [(512, "dcf"), (1024, "dcf"), (1024, "prefix")])
@pytest.mark.parametrize("count", [1, 205])
def test_pivots_cost_what_they_declare(n: int, count: int, how: How) -> None:
    sizes = selection.pivot_sizes(n, count, how)
    assert sizes is not None
    protocol = Protocol(
        "flags of the best by pivots",
        [((n,), 16, 8.0)],
        lambda x: selection.kept_flags(selection.distinct(x), count),
        lambda how: declared(sizes, how),
    )
    assert dry_run(protocol, how) == protocol.cost(how)
    if n == 512:
        assert simulated(protocol, how) == protocol.cost(how)
        assert protocol.cost(how).rounds == 1 + ROUNDS


def small(scores: Tensor, seed: int, sizes: SampleSizes = SMALL) -> tuple[Any, list[Any]]:
    """Returns all opened bits of a top-k of many rows, in the order of the shuffle."""
    heads = scores.shape[0]

    def program(source: Source) -> Program[Any]:
        keys = yield from gates.open_(share(source, scores, 8.0))
        shuffle = selection.draw(source, heads, SMALL.n)
        shuffled = yield from gates.open_(shuffle.apply(selection.distinct(keys).reshape(heads, SMALL.n, 1)))
        return (yield from top_k_by_pivots(shuffled.reshape(heads, SMALL.n), sizes))

    simulation = Simulation(seed)
    try:
        return simulation.run(program)[0], simulation.opened
    except PivotsMissed:
        return None, simulation.opened


ROWS = {
    "rising": torch.arange(24.0) / 4,
    "falling": -torch.arange(24.0) / 4,
    "equal": torch.zeros(24),
    "ties": torch.tensor([1.0, 0.0, 0.0] * 8),
}


@pytest.mark.parametrize("name", ROWS)
def test_opened_bits_and_misses_are_those_of_a_random_ranking(name: str) -> None:
    heads = 3000
    scores = ROWS[name].double().expand(heads, 24)
    _, seen = small(scores, 5)
    sample_bits, pivot_bits = seen[2][0], seen[4][0]
    first = np.unpackbits(sample_bits, count=28 * heads).reshape(heads, 28)
    assert np.abs(first.mean(0) - 0.5).max() < 6 * 0.5 / math.sqrt(heads)
    below = np.unpackbits(pivot_bits, count=heads * 16 * 2).reshape(heads, 16, 2).mean(0)
    expected = np.array([1 - 2 / 9, 1 - 5 / 9])  # a further value is above the j-th of eight with probability j / 9
    assert np.abs(below - expected).max() < 6 * 0.5 / math.sqrt(heads)


def of_random_ranking(heads: int, sizes: SampleSizes) -> np.ndarray[Any, Any]:
    """Returns the bits of the last ranking as a simulator draws them, [heads, pairs]."""
    x = np.random.default_rng(8).permuted(np.tile(np.arange(sizes.n), (heads, 1)), axis=1)
    order = (-x[:, : sizes.sample]).argsort(1)
    pivots = np.take_along_axis(x, order[:, sizes.pivots], 1)
    below = torch.from_numpy(x[:, sizes.sample :, None] < pivots[:, None]).to(torch.uint8)
    classes = _classes(torch.from_numpy(order), below, sizes).numpy()
    candidates = np.take_along_axis(x, (classes != 0).argsort(1, kind="stable")[:, : sizes.between], 1)
    first, second = np.triu_indices(sizes.between, 1)
    return candidates[:, first] < candidates[:, second]


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.slow
def test_the_last_ranking_opens_what_a_simulator_draws(name: str) -> None:
    heads, pairs = 3000, math.comb(ROOMY.between, 2)
    _, seen = small(ROWS[name].double().expand(heads, 24), 6, ROOMY)
    bits_of_candidates = np.unpackbits(seen[6][0], count=pairs * heads).reshape(heads, pairs)
    expected = of_random_ranking(20 * heads, ROOMY).mean(0)
    assert np.abs(bits_of_candidates.mean(0) - expected).max() < 6 * 0.5 * math.sqrt(1.05 / heads)
    assert np.ptp(expected) > 0.1, "bits that follow from earlier ones are not fair ones"


def test_more_values_than_the_sizes_allow_are_missed_by_both() -> None:
    outcomes = [small(ROWS["ties"].double().expand(1, 24), seed)[0] for seed in range(60)]
    missed = sum(outcome is None for outcome in outcomes)
    assert 0 < missed < 60
    assert all(outcome.shape == (1, 8) for outcome in outcomes if outcome is not None)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 300), st.data())
def test_tails_are_hypergeometric(n: int, data: st.DataObject) -> None:
    marked, sample = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))

    def fewer(j: int) -> Fraction:
        ways = sum(math.comb(marked, i) * math.comb(n - marked, sample - i) for i in range(j))
        return Fraction(ways, math.comb(n, sample))

    j = hypergeometric_quantile(n, marked, sample)
    assert fewer(j) <= Fraction(1, 2**MISS_BITS) < fewer(j + 1)


@settings(deadline=None, max_examples=20)
@given(st.integers(512, 1500), st.floats(0.01, 0.99))
def test_random_rankings_fit_the_sizes(n: int, share_kept: float) -> None:
    sizes = sample_sizes(n, max(1, int(n * share_kept)))
    generator = np.random.default_rng(n)
    for _ in range(20):
        ranks = np.sort(generator.permutation(n)[: sizes.sample]) + 1
        edges = np.concatenate([[0], ranks, [n + 1]])
        high, low = edges[sizes.high], edges[sizes.low]
        assert high <= sizes.count < low
        assert low - high - 1 <= sizes.between
