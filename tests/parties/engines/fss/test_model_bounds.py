"""Bounds of a model: values of the computation, with which wider numbers are right; without them nothing changes."""

from typing import Any

import pytest
import torch

from parties.decoding.program import Program
from parties.engines.bounds import Kind
from parties.engines.fss import bounds
from parties.engines.fss.arithmetic import gates
from parties.engines.fss.bounds import BOUNDS, FIXED, NARROWED, WIDEST, BoundRefused, declared
from parties.engines.fss.computation import Computation
from parties.engines.fss.cost.cost import predict
from parties.engines.fss.cost.simulation import Simulation, share, value_of
from parties.engines.fss.dealing.plan import Plan
from parties.engines.fss.dealing.requests import BadRequest
from parties.engines.fss.functions.activation import activation
from parties.engines.fss.functions.norm import normalise, to_norm
from parties.engines.fss.randomness.source import Source
from parties.engines.plain import ACTIVATIONS
from parties.errors import Unsupported
from parties.options import RunOptions
from parties.policies import Full
from tests.helpers.tiny import LLAMA
from tests.parties.engines.fss.test_sizes import planned


def bounded(**wider: int) -> RunOptions:
    return RunOptions.model_validate({"bounds": {name.replace("_", " "): limit for name, limit in wider.items()}})


def computed(function: Any, x: torch.Tensor, limit: float, options: RunOptions) -> torch.Tensor:
    """The result of a function of masked numbers in a computation with these options."""

    def program(source: Source) -> Program[Any]:
        Computation(source).configure(options)
        return (yield from function((yield from gates.open_(share(source, x, limit)))))

    return value_of(*Simulation().run(program))


@pytest.mark.parametrize("limit", [128, 512])
def test_activations_are_right_up_to_the_bound_of_the_model(limit: int) -> None:
    x = torch.linspace(-limit, limit - 1, 400).double().clamp(min=0.1 - limit)
    found = computed(lambda x: activation(x, "silu"), x, float(limit), bounded(activation=limit))
    assert (found - ACTIVATIONS["silu"](x)).abs().max() < 5e-3


@pytest.mark.parametrize("width", [64, 576])
@pytest.mark.parametrize("size", [0.5, 30.0, 1.4e3, 4.5e4])
def test_norms_are_right_up_to_the_largest_bound(size: float, width: int) -> None:
    rows = torch.randn(3, width, generator=torch.Generator().manual_seed(1)).double()
    rows = rows * (size / rows.square().mean(1, keepdim=True).sqrt())
    options = bounded(mean_square=2**31)
    found = computed(lambda x: normalise(to_norm(x, centre=False), 1e-5), rows, 2.0**20, options)
    assert (found - rows * torch.rsqrt(rows.square().mean(1, keepdim=True) + 1e-5)).abs().max() < 1e-2


@pytest.mark.parametrize("number", WIDEST)
def test_every_bound_can_be_declared_up_to_the_widest_and_holds_more(number: str) -> None:
    wide = declared(((number, round(WIDEST[number])),))
    assert wide[number].limit == WIDEST[number] > BOUNDS[number].limit
    assert wide[number].high > BOUNDS[number].high
    assert {key: wide[key] for key in wide if key != number} == {k: b for k, b in BOUNDS.items() if k != number}
    assert declared(((number, round(BOUNDS[number].limit)),)) == BOUNDS, "the engine's own bound changes nothing"


def test_every_bound_is_a_models_own_or_has_a_reason_not_to_be() -> None:
    assert set(WIDEST) | set(FIXED) == set(BOUNDS)
    assert not set(WIDEST) & set(FIXED)


@pytest.mark.parametrize("number", sorted(NARROWED))
def test_a_bound_of_truncated_numbers_can_be_narrowed(number: str) -> None:
    narrow = declared(((number, 1),))
    assert (narrow[number].low, narrow[number].high) == (-1.0, 1.0)
    assert narrow[number].kind is Kind.RARE
    assert narrow[number].fraction_bits == BOUNDS[number].fraction_bits


def test_narrow_bounds_leave_results_as_they_are_and_make_retries_rare() -> None:
    x = torch.randn(2, 64, generator=torch.Generator().manual_seed(2)).double()
    expected = ACTIVATIONS["silu"](x) * x

    def gated(options: RunOptions) -> tuple[torch.Tensor, float]:
        expected_failures = []

        def program(source: Source) -> Program[Any]:
            engine = Computation(source)
            engine.configure(options)
            shared = yield from gates.open_(share(source, x, 32.0))
            found = yield from engine.gated_activation(shared, shared, "silu")
            expected_failures.append(source.retries.expected)
            return found

        return value_of(*Simulation().run(program)), max(expected_failures)

    (own, often), (narrow, rarely) = gated(RunOptions()), gated(bounded(product=16))
    assert (own - expected).abs().max() < 5e-3
    assert (narrow - expected).abs().max() < 5e-3
    assert rarely < often / 8


@pytest.mark.parametrize(
    ("number", "limit", "allowed"),
    [
        ("down", 3000, "a power of two from 1 to 131072"),
        ("down", 1 << 18, "a power of two from 1 to 131072"),
        ("qkv", 32, "a power of two from 64 to 4096"),
        ("activation", 32, "a power of two from 64 to 512"),
        ("score", 512, "the engine's own: the tables of the softmax have one range"),
        ("peak", 512, "the engine's own: the tables of the softmax have one range"),
        ("capped", 512, "the engine's own: the table of the cap has one range"),
        ("declared", 128, "the engine's own: a policy declares the range of its own numbers, such as 64 for the keys"),
        ("scores", 512, "of one of qkv,"),
    ],
)
def test_a_bound_that_the_engine_does_not_take_is_refused_by_every_party(number: str, limit: int, allowed: str) -> None:
    with pytest.raises(BoundRefused, match=allowed):
        declared(((number, limit),))
    options = RunOptions(bounds=((number, limit),))
    with pytest.raises(Unsupported, match=f"engine fss: bounds: the bound of '{number}' is {limit}; it must be"):
        Computation(Simulation().client).configure(options)
    plan = planned(8, 2).to_json()
    plan["options"]["bounds"] = {number: limit}
    with pytest.raises(BadRequest, match=allowed):
        Plan.from_json(plan, "full")


def test_a_plan_carries_the_bounds_to_the_dealer() -> None:
    plan = planned(8, 2).to_json()
    plan["options"]["bounds"] = {"down": 4096}
    assert Plan.from_json(plan, "full").workload.options.bounds == (("down", 4096),)


def test_wider_bounds_cost_what_they_say_and_the_engines_own_cost_nothing() -> None:
    def dealt(options: RunOptions) -> int:
        return (
            predict(LLAMA, Full(), seq_len=20, new_tokens=1, options=options)
            .decode.total("server", "offline")
            .received_bytes
        )

    own = dealt(RunOptions())
    assert dealt(bounded(activation=64, down=2048)) == own
    assert dealt(bounded(down=1 << 16, product=1 << 12)) == own, "a rare bound costs retries and no bytes"
    per_element = (dealt(bounded(activation=128)) - own) / (LLAMA.n_layers * LLAMA.intermediate)
    assert per_element == pytest.approx(256, abs=1)


def test_the_prediction_counts_retries_by_the_bounds() -> None:
    def retries(**own: int) -> float:
        return predict(LLAMA, Full(), seq_len=20, new_tokens=1, options=bounded(**own)).decode.retries

    products = LLAMA.n_layers * LLAMA.intermediate  # each is truncated once
    assert retries() - retries(product=512) == pytest.approx(products * 2.0 ** (41 - 63))
    assert retries(product=2048) - retries() == pytest.approx(products * 2.0 ** (42 - 63))


def test_the_referee_compares_with_the_bounds_of_the_model() -> None:
    assert Computation.declared(RunOptions()) == bounds.BOUNDS
    assert Computation.declared(bounded(activation=128))["activation"].high == 128 - 2**-4
