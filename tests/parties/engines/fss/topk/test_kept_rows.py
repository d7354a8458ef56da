"""Kept rows per head, signs, inverse roots, masked rows: like the plain engine, at the stated cost."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from parties.decoding.cache import LayerCache
from parties.decoding.program import Program, run
from parties.engines.fss.arithmetic.gates import TruncationFailure, open_
from parties.engines.fss.computation import Computation
from parties.engines.fss.cost.simulation import Simulation, share, value_of
from parties.engines.fss.randomness.source import Source
from parties.engines.plain import PlainEngine
from parties.metering.meter import StageMeter

PLAIN = PlainEngine(StageMeter())
Function = Callable[..., Program[Any]]


def drawn(*shape: int, seed: int = 0, ties: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randint(0, 3, shape, generator=generator) if ties else torch.randn(shape, generator=generator)
    ).double()


def computed(function: Function, *inputs: Tensor) -> tuple[Tensor, Simulation]:
    """Runs a function on masked inputs; each takes a round to open."""
    for seed in range(20):
        simulation = Simulation(seed)

        def program(source: Source) -> Program[Any]:
            values = []
            for numbers in inputs:
                values.append((yield from open_(share(source, numbers, 2.0**15))))
            return (yield from function(Computation(source), *values))

        try:
            return value_of(*simulation.run(program)), simulation
        except TruncationFailure:
            continue
    raise AssertionError("truncation failed twenty times in a row")


def kept(engine: Any, scores: Any, rows: Any, count: int) -> Program[Any]:
    handle = yield from engine.keep_top(scores, count)
    return (yield from engine.compact(handle, [rows]))[0]


def flagged(engine: Any, scores: Any, count: int) -> Program[Any]:
    return (yield from engine.flags((yield from engine.keep_top(scores, count)), scores.shape[1]))


def from_flags(engine: Any, flags: Any, rows: Any, count: int) -> Program[Any]:
    handle = yield from engine.kept_from(flags, count)
    return (yield from engine.compact(handle, [rows]))[0]


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 3), st.integers(2, 20), st.data(), st.booleans())
def test_each_head_keeps_its_own_rows_in_order(heads: int, n: int, data: st.DataObject, ties: bool) -> None:
    count, scores, rows = data.draw(st.integers(1, n)), drawn(heads, n, ties=ties), drawn(heads, n, 3, seed=1)
    found, _ = computed(lambda e, s, r: kept(e, s, r, count), scores, rows)
    assert torch.allclose(found, run(kept(PLAIN, scores, rows, count)), atol=1e-4)
    flags, _ = computed(lambda e, s: flagged(e, s, count), scores)
    assert torch.equal(flags, run(flagged(PLAIN, scores, count)))


def test_all_heads_are_kept_in_the_rounds_of_one() -> None:
    rounds = []
    for heads in (1, 4):
        _, simulation = computed(lambda e, s, r: kept(e, s, r, 5), drawn(heads, 12), drawn(heads, 12, 2))
        rounds.append(simulation.cost.rounds)
    assert rounds[0] == rounds[1] == 2 + 2 + 4


def test_rows_are_kept_by_flags_with_and_without_fraction_bits() -> None:
    flags, rows = torch.tensor([[0.0, 1, 1, 0, 1], [1, 1, 0, 0, 1]]), drawn(2, 5, 3)

    def whole(engine: Any, numbers: Any, data: Any) -> Program[Any]:
        exact = yield from engine.negative(-numbers)
        assert exact.scale == 0
        return (yield from from_flags(engine, exact, data, 3))

    expected = run(from_flags(PLAIN, flags, rows, 3))
    for function in (whole, lambda e, f, r: from_flags(e, f, r, 3)):
        found, _ = computed(function, flags, rows)
        assert torch.allclose(found, expected, atol=1e-4)


def test_signs_are_exact() -> None:
    x = torch.cat([drawn(200) * 100, torch.tensor([0.0, 2.0**-16, -(2.0**-16), 30000.0, -30000.0])])
    found, simulation = computed(lambda e, v: e.negative(v), x)
    assert torch.equal(found, (x < 0).double())
    assert simulation.cost.rounds == 1 + 2


def test_inverse_roots() -> None:
    x = 2.0 ** torch.linspace(-10, 14, 200).double()
    found, simulation = computed(lambda e, v: e.inverse_root(e.bounded(v, 2.0**15)), x)
    exact = x.mul(2**16).round().div(2**16).rsqrt()
    assert ((found - exact).abs() < exact * 2.0**-11 + 2.0**-15).all()
    assert simulation.cost.rounds == 1 + 2


def test_constants_take_nothing_and_join_with_secrets() -> None:
    known = torch.tensor([[1.5, -2.0]])

    def joined(engine: Any, x: Any) -> Program[Any]:
        return engine.cat([x, engine.constant(known) + x], dim=0)
        yield

    x = drawn(1, 2)
    found, simulation = computed(joined, x)
    assert torch.allclose(found, torch.cat([x, known + x]), atol=1e-4)
    assert simulation.cost.rounds == 1
    assert simulation.cost.offline_bytes == (0, 0)


@pytest.mark.parametrize("groups", [1, 2])
def test_rows_that_do_not_count_get_no_attention(groups: int) -> None:
    q, k, v = drawn(4, 1, 8), drawn(2, 9, 8, seed=1), drawn(2, 9, 8, seed=2)
    alive = (torch.arange(9 * groups).reshape(groups, 9) % 3 > 0).double()

    def weights(engine: Any, *values: Any) -> Program[Any]:
        query, keys, rows, flags = (
            engine.bounded(value, limit) for value, limit in zip(values, (8, 8, 8, 2), strict=True)
        )
        mixed, seen = yield from engine.attend_observed(query, LayerCache(keys, rows, flags))
        return engine.cat([mixed, seen], dim=2)

    found, _ = computed(weights, q, k, v, alive)
    expected = run(weights(PLAIN, q, k, v, alive))
    assert (found - expected).abs().max() < 0.02
    dead = (alive == 0).expand(2, 9).repeat_interleave(2, dim=0).unsqueeze(1)
    assert found[:, :, 8:][dead].abs().max() < 2.0**-12
