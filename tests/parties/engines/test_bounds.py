"""Declared ranges: a plain run is compared with them, and a departure is reported by number, layer and value."""

from typing import Any

import pytest
import torch

from parties.decoding.program import Program
from parties.engines.bounds import Bound, Kind, Watch, certain, rare
from parties.engines.crypten.engine import CrypTenEngine
from parties.engines.fss import bounds
from parties.engines.fss.arithmetic import gates
from parties.engines.fss.computation import Computation
from parties.engines.fss.cost.simulation import BeyondBound, Simulation, share, value_of
from parties.engines.fss.functions.activation import activation
from parties.engines.fss.randomness.source import Source
from parties.engines.plain import ACTIVATIONS
from parties.engines.watched import WatchedEngine
from parties.errors import OutOfRange
from parties.metering.meter import StageMeter
from parties.metering.progress import Progress
from parties.models import load_weights
from parties.roles import referee as refereeing
from parties.roles.job import Job
from parties.roles.referee import Referee
from tests.helpers.policy_cases import SPEC, VARIANTS, case, decode, plain, tokens
from tests.helpers.tiny import GEMMA, GPT2

ENGINES: dict[str, Any] = {"fss": Computation, "crypten": CrypTenEngine}


def watched(name: str, spec: Any = SPEC) -> tuple[Watch, torch.Tensor, torch.Tensor]:
    """Runs a policy on a tiny model: the watch, the logits with it and the logits without it."""
    decoder, text = plain(case(name), spec, kind=WatchedEngine), tokens(spec)
    vars(decoder.engine)["watch"] = watch = Watch(dict(ENGINES["fss"].bounds) | dict(ENGINES["crypten"].bounds))
    return watch, decode(decoder, *text).logits, decode(plain(case(name), spec), *text).logits


@pytest.mark.parametrize("name", VARIANTS)
def test_no_policy_leaves_a_range_on_a_tiny_model_and_watching_changes_nothing(name: str) -> None:
    watch, logits, expected = watched(name)
    assert not watch.first, {kind: str(left) for kind, left in watch.first.items()}
    assert torch.equal(logits, expected)


def test_every_declared_number_is_seen() -> None:
    seen = {"compared logit"}  # by the choice of a token, which `decode` leaves out
    for spec, cases in ((SPEC, list(VARIANTS)), (GPT2, ["full"]), (GEMMA, ["full"])):
        seen |= {key for name in cases for key in watched(name, spec)[0].seen}
    for engine in ENGINES.values():
        assert set(engine.bounds) <= seen


def test_the_first_departure_of_a_kind_is_reported_with_the_value_farthest_outside() -> None:
    watch = Watch({"a": certain("number a", -1.0, 2.0), "b": rare("number b", 2.0**10, 32)}, token=3)
    watch.see("a", torch.tensor([0.0, 2.0]), 0)
    watch.see("unknown", torch.tensor([1e9]), 0)
    assert not watch.first
    watch.see("a", torch.tensor([2.5, -7.0]), 1)
    watch.see("a", torch.tensor([100.0]), 2)
    watch.see("b", torch.tensor([1024.0, 3072.0, -2048.0]), None)
    left = watch.first[Kind.CERTAIN]
    assert (left.number, left.value, left.layer, left.token, left.low, left.high) == ("number a", -7.0, 1, 3, -1.0, 2.0)
    assert watch.seen["a"] == (-7.0, 100.0)
    # (3072 - 1024 + 2048 - 1024) 2^32 of 2^64
    assert watch.chance == pytest.approx(3072 * 2.0**-32)
    watch.see("a", torch.tensor([float("nan")]), 4)
    assert watch.first[Kind.CERTAIN] is left


def test_nan_is_out_of_every_range() -> None:
    watch = Watch({"a": certain("number a", -1.0, 1.0)})
    watch.see("a", torch.tensor([0.0, float("nan")]), 0)
    assert watch.first[Kind.CERTAIN].value is None


def test_beyond_a_certain_bound_the_private_result_is_wrong_for_all_randomness(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The activation is right at both ends of its range, and wrong just beyond with every seed."""
    monkeypatch.setattr(
        "parties.engines.fss.cost.simulation._require", lambda *_: None
    )  # a run between hosts does not check

    def error(value: float, seed: int) -> float:
        def program(source: Source) -> Program[Any]:
            x = yield from gates.open_(share(source, torch.tensor([value]), 64.0))
            return (yield from activation(x, "silu"))

        found = value_of(*Simulation(seed).run(program))
        return float((found - ACTIVATIONS["silu"](torch.tensor([value]))).abs())

    ends = (bounds.ACTIVATION.low, bounds.ACTIVATION.high - 2**-10)
    assert all(error(end, seed) < 5e-3 for end in ends for seed in range(5))
    assert all(error(64.5, seed) > 60 for seed in range(5))


@pytest.mark.parametrize("masked", [True, False])
def test_a_simulation_refuses_a_bound_that_does_not_hold_where_it_is_declared(masked: bool) -> None:
    def program(source: Source) -> Program[Any]:
        x = share(source, torch.tensor([1.0, 70.0]), 128.0)
        value = (yield from gates.open_(x)) if masked else x
        value.bounded(128.0)
        return value.bounded(64.0)

    with pytest.raises(BeyondBound, match=r"4\.58752e\+06.*below 2\^22"):
        Simulation(1).run(program)


def verdict(monkeypatch: pytest.MonkeyPatch, engine: str, changes: dict[str, float], **cell: Any) -> OutOfRange:
    """Returns the referee's refusal of a cell of a tiny model, some of whose matrices are scaled up."""

    def larger(model: str) -> dict[str, torch.Tensor]:
        weights = load_weights(model)
        return {n: w * next((f for end, f in changes.items() if n.endswith(end)), 1.0) for n, w in weights.items()}

    monkeypatch.setattr(refereeing, "load_weights", larger)
    meter = StageMeter()
    job = Job.model_validate({
        "engine": engine, "model": "random:tiny-llama", "policy": {"name": "full"}, "prompt": {"random_tokens": True},
        "seq_len": 12, "new_tokens": 2, **cell,
    })  # fmt: skip
    with pytest.raises(OutOfRange) as caught:
        Referee({}, meter, Progress(meter)).run(job)  # type: ignore[arg-type]  # no party is used
    return caught.value


@pytest.mark.parametrize(("engine", "number"), [("fss", "attention score"), ("crypten", "attention score less the")])
@pytest.mark.parametrize("prefill", ["shared", "mpc"])
def test_scores_that_an_engine_cannot_take_are_refused_before_anything_private_runs(
    monkeypatch: pytest.MonkeyPatch, engine: str, number: str, prefill: str
) -> None:
    error = verdict(monkeypatch, engine, {"layers.1.q.weight": 3000.0}, options={"prefill": prefill})
    assert error.number["number"].startswith(number)
    assert error.number["layer"] == 1
    assert error.number["token"] == (0 if prefill == "mpc" else 1)
    assert error.number["kind"] == "certain"
    assert all(part in str(error) for part in (number, "of layer 1", engine, "mpcache-bench calibrate MODEL"))


@pytest.mark.parametrize("engine", ENGINES)
def test_activations_that_an_engine_cannot_take_are_refused(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    error = verdict(monkeypatch, engine, {"layers.0.down.weight": 1e5})
    bound: Bound = ENGINES[engine].bounds["mean square"]
    assert (error.number["number"], error.number["layer"]) == ("mean square", 1)
    assert error.number["value"] > error.number["high"] == bound.high
