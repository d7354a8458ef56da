"""Comparisons: exhaustive at small widths, random and at the edges of large ones, with both protocols."""

import itertools
import math
import random
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parties.decoding.program import Program
from parties.engines.fss.arithmetic import gates
from parties.engines.fss.arithmetic.values import Masked
from parties.engines.fss.compare.signs import LANE_BITS, below_edges, count_below, negative, where_negative
from parties.engines.fss.cost.simulation import Simulation, share, value_of
from parties.engines.fss.randomness import dcf
from parties.engines.fss.randomness.source import Source
from parties.engines.fss.topk import maximum
from tests.helpers.comparisons import seeds

PERMUTATION = dcf.Permutation(b"a session's key!")

How = Literal["dcf", "prefix"]


@pytest.mark.parametrize("width", range(1, 10))
def test_every_pair_of_small_numbers(width: int) -> None:
    size = 2**width
    alpha, x = torch.arange(size).repeat_interleave(size), torch.arange(size).repeat(size)
    first, second = seeds(len(x))
    key = dcf.generate(PERMUTATION, alpha, width, first, second)
    assert tuple(key.shape) == (dcf.key_blocks(width), len(x), 16)
    shares = [
        dcf.evaluate(PERMUTATION, party, x[:, None], width, seed, key) for party, seed in enumerate((first, second))
    ]
    assert torch.equal((shares[0] ^ shares[1])[:, 0], (x < alpha).to(torch.uint8))


@settings(max_examples=40, deadline=None)
@given(st.integers(10, 63), st.data())
def test_large_numbers_and_their_neighbours(width: int, data: st.DataObject) -> None:
    top = 2**width - 1
    alphas = [0, top, *data.draw(st.lists(st.integers(0, top), min_size=1, max_size=8))]
    pairs = [(a, min(top, max(0, a + d))) for a in alphas for d in (-1, 0, 1)] + [
        (a, data.draw(st.integers(0, top))) for a in alphas
    ]
    alpha, x = (torch.tensor(side) for side in zip(*pairs, strict=True))
    first, second = seeds(len(x))
    key = dcf.generate(PERMUTATION, alpha, width, first, second)
    shares = [
        dcf.evaluate(PERMUTATION, party, x[:, None], width, seed, key) for party, seed in enumerate((first, second))
    ]
    assert torch.equal((shares[0] ^ shares[1])[:, 0], (x < alpha).to(torch.uint8))


def test_a_share_of_the_result_and_the_key_look_random() -> None:
    count = 40_000
    alpha = torch.full((count,), 5)
    first, second = seeds(count)
    key = dcf.generate(PERMUTATION, alpha, 20, first, second)
    share_of_one = dcf.evaluate(PERMUTATION, 0, torch.full((count, 1), 3), 20, first, key)
    for bits in (share_of_one.numpy(), *(np.unpackbits(key[level].numpy()) for level in (0, -1))):
        assert abs(float(bits.mean()) - 0.5) * 2 * math.sqrt(bits.size) < 6


def signs(integers: list[int], limit_bits: int, how: How, seed: int) -> tuple[list[int], Simulation]:
    (first, second), simulation = compared(negative, integers, limit_bits, how, seed)
    return (first ^ second).tolist(), simulation


def compared(
    function: Callable[[Masked], Program[Any]], integers: list[int], limit_bits: int, how: How, seed: int
) -> tuple[tuple[Any, Any], Simulation]:
    """Both parties' results of a comparison, on integers that are below 2^limit_bits."""
    simulation = Simulation(seed)
    for source in simulation.sources:
        source.comparison = how

    def program(source: Source) -> Program[Any]:
        numbers = torch.tensor(integers, dtype=torch.int64)
        additive = share(source, torch.zeros(len(integers)), 2.0**limit_bits, scale=0)
        if source.rank == 0:
            additive.share = additive.share + numbers
        x = yield from gates.open_(additive)
        return (yield from function(x))

    return simulation.run(program), simulation


@pytest.mark.parametrize("how", ["dcf", "prefix"])
@pytest.mark.parametrize("bits", [1, 2, 3, 5, 7, 8])
def test_signs_of_all_small_numbers_under_many_masks(how: How, bits: int) -> None:
    integers = list(range(-(2**bits) + 1, 2**bits))
    for seed in range(5):
        assert signs(integers, bits, how, seed)[0] == [int(x < 0) for x in integers]


@pytest.mark.parametrize("how", ["dcf", "prefix"])
@pytest.mark.parametrize("bits", range(1, 64))
def test_signs_at_every_width_on_edges_and_at_random(how: How, bits: int) -> None:
    edge, dice = 2**bits - 1, random.Random(bits)
    near = [place + step for place in (0, edge, -edge, 2 ** (bits - 1), -(2 ** (bits - 1))) for step in (-1, 0, 1)]
    integers = [x for x in near if abs(x) <= edge] + [dice.randint(-edge, edge) for _ in range(20)]
    for seed in range(3):
        assert signs(integers, bits, how, seed)[0] == [int(x < 0) for x in integers]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["dcf", "prefix"]), st.integers(2, 63), st.integers(0, 999), st.data())
def test_signs_of_large_numbers(how: How, bits: int, seed: int, data: st.DataObject) -> None:
    edge = 2**bits - 1
    integers = [0, -1, 1, edge, -edge, *data.draw(st.lists(st.integers(-edge, edge), max_size=10))]
    assert signs(integers, bits, how, seed)[0] == [int(x < 0) for x in integers]


@pytest.mark.parametrize("how", ["dcf", "prefix"])
@pytest.mark.parametrize("bits", [3, 9, 40, 62])
def test_one_mask_serves_all_public_edges(how: How, bits: int) -> None:
    top, dice = 2**bits - 1, random.Random(bits)
    edges = sorted({1, 2, top, *(dice.randint(1, top) for _ in range(9))})
    integers = [0, top, *edges, *(edge - 1 for edge in edges), *(dice.randint(0, top) for _ in range(20))]
    expected = [[int(x < edge) for edge in edges] for x in integers]
    public = torch.tensor(edges, dtype=torch.int64)
    for seed in range(3):
        (first, second), _ = compared(lambda x: below_edges(x, public), integers, bits, how, seed)
        assert (first ^ second).tolist() == expected
        (first, second), simulation = compared(lambda x: count_below(x, public), integers, bits, how, seed)
        assert value_of(first, second).tolist() == [sum(row) for row in expected]
        if how == "dcf":
            assert simulation.cost.rounds == 1


def test_nothing_but_the_input_is_opened_to_count_edges_and_it_looks_random() -> None:
    opened = []
    for seed in range(200):
        _, simulation = compared(lambda x: count_below(x, torch.arange(1, 8)), [0, 7] * 40, 3, "dcf", seed)
        (round_,) = simulation.opened
        opened.append(round_[0])
    bits = np.unpackbits(torch.stack(opened).numpy().view(np.uint8))
    assert abs(float(bits.mean()) - 0.5) * 2 * math.sqrt(bits.size) < 6


@pytest.mark.parametrize("bits", [1, 2, 23, 29])
def test_numbers_are_chosen_where_another_is_negative(bits: int) -> None:
    edge, dice = 2**bits - 1, random.Random(bits)
    integers = [0, 1, -1, edge, -edge, *(dice.randint(-edge, edge) for _ in range(20))]
    chosen = torch.tensor(integers).flip(0)

    def negative_parts(x: Masked) -> Program[Any]:
        """Chooses x itself and its mirror image."""
        upper = x.upscaled(LANE_BITS)
        both = Masked(
            x.source, torch.stack([upper.public, upper.public.flip(0)]), torch.stack([upper.mask, upper.mask.flip(0)]),
            LANE_BITS, upper.limit, x.epoch,
        )  # fmt: skip
        return where_negative(upper, both)
        yield

    for seed in range(3):
        (first, second), simulation = compared(negative_parts, integers, bits, "dcf", seed)
        signs_of = torch.tensor([int(x < 0) for x in integers])
        assert value_of(first, second).long().tolist() == [
            (signs_of * torch.tensor(integers)).tolist(), (signs_of * chosen).tolist()
        ]  # fmt: skip
        assert simulation.cost.rounds == 1, "the input's"


@pytest.mark.parametrize("winner", [0, 6])
def test_what_an_argmax_opens_looks_random_wherever_the_largest_is(winner: int) -> None:
    integers, opened = [0] * 7, []
    integers[winner] = 1000
    for seed in range(80):
        _, simulation = compared(maximum.argmax, integers, 11, "dcf", seed)
        opened.append(torch.cat([part.reshape(-1) for part in itertools.chain(*simulation.opened[1:])]))
    octets = torch.stack(opened).numpy().view(np.uint8)
    for column in np.unpackbits(octets, axis=1).T:
        assert abs(float(column.mean()) - 0.5) * 2 * math.sqrt(len(column)) < 6


@pytest.mark.parametrize("bits", [4, 20, 45, 62])
def test_cost_is_as_stated(bits: int) -> None:
    count = 64
    cost = signs([1] * count, bits, "dcf", 0)[1].cost
    assert (cost.rounds, cost.online_bytes) == (1, 8 * count)  # the input's
    key = 16 * max(1, bits - 6) * count
    assert cost.offline_bytes == (key, key + count // 8)
    cost = signs([1] * count, bits, "prefix", 0)[1].cost
    assert cost.rounds == 1 + math.ceil(math.log2(bits))
    assert cost.online_bytes - 8 * count <= (3 * bits / 8 + 2) * count
    assert cost.offline_bytes[0] == 0
    assert cost.offline_bytes[1] <= (3 * bits / 8 + 2) * count
