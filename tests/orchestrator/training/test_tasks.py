"""Losses are those of the papers, seen values are those of the model, and training lowers its loss."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from orchestrator.training.attention_gate import SCORE_LIMIT, AttentionGateTask, excess, gate_logits, straight_through
from orchestrator.training.backbone import Backbone
from orchestrator.training.locret import largest_logits, locret_scores
from orchestrator.training.loop import begin, train
from orchestrator.training.settings import TrainingError
from orchestrator.training.windows import draw, read_text
from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import run
from parties.models import load_weights
from parties.policies.full import Full
from tests.helpers.naive_decoder import norm
from tests.helpers.small_training import KINDS, MODEL, silent, task, write_text

MODELS = [MODEL, "random:tiny-gpt2?layers=2"]


def logits_of(backbone: Backbone, tokens: list[int], first: int) -> Tensor:
    """Next-token logits after `first` and all later tokens, with the full cache, one token at a time."""
    decoder, cache = Decoder(backbone.engine, backbone.spec, Full()), Cache.empty(backbone.spec.n_layers)
    run(decoder.prefill(run(decoder.embed(tokens[:first], first, 0)), cache))
    steps = [run(decoder.step(run(decoder.embed([t], 1, cache.position)), cache)) for t in tokens[first:]]
    return torch.cat(steps)


@pytest.mark.parametrize("model", MODELS)
def test_observed_values_of_a_layer_are_those_of_the_published_weights(model: str) -> None:
    backbone, w = Backbone(model), load_weights(model)
    tokens, spec = [3, 1, 4, 1, 5, 9, 2, 6], backbone.spec
    seen = backbone.watch(tokens)
    x = w["embed"][tokens] + (w["positions"][: len(tokens)] if spec.family == "gpt2" else 0)
    normal = norm(spec, {name: t.double() for name, t in w.items()}, "layers.0.attn_norm", x.double()).float()
    parts = [normal @ w[f"layers.0.{n}.weight"] + w.get(f"layers.0.{n}.bias", torch.tensor(0.0)) for n in "qkv"]
    torch.testing.assert_close(seen[0].normal, normal, rtol=0, atol=1e-4)
    torch.testing.assert_close(seen[0].qkv, torch.cat(parts, dim=1), rtol=1e-3, atol=1e-3)
    assert len(seen) == spec.n_layers, "the last layer too"
    assert not any(tensor.requires_grad for layer in seen for tensor in (layer.qkv, layer.k))


def test_locrets_target_is_the_largest_logit_of_the_answer_in_the_heads_group() -> None:
    q, k = torch.randn(4, 5, 3), torch.randn(2, 7, 3)
    found = largest_logits(q, k)
    for group in range(2):
        for token in range(7):
            logits = [float(q[head, p] @ k[group, token]) for head in (2 * group, 2 * group + 1) for p in range(5)]
            assert float(found[group, token]) == pytest.approx(max(logits), abs=1e-5)


def test_locrets_loss_is_smooth_l1_and_the_differences_of_neighbours() -> None:
    here = task("locret")
    parameters = here.start()
    seen = here.observe(list(range(32)))
    parts = here.loss(parameters, seen)
    scores = torch.stack(
        [(torch.nn.functional.silu(rows.float() @ w1) @ w2).T
         for rows, w1, w2 in zip(seen["rows"], parameters["in"], parameters["out"], strict=True)]
    )  # fmt: skip
    torch.testing.assert_close(locret_scores(parameters, seen["rows"].float()), scores)
    error = (scores - seen["target"]).abs()
    expected = torch.where(error < 1, 0.5 * error**2, error - 0.5).mean()
    torch.testing.assert_close(parts["regression"], expected)
    steps = (scores[:, :, 1:] - scores[:, :, :-1]).square().mean()
    torch.testing.assert_close(parts["smoothing"], 0.0025 * steps)
    layers = here.backbone.watch(list(range(32)))
    torch.testing.assert_close(seen["target"][1], largest_logits(layers[1].q[:, 24:], layers[1].k[:, :24]))


@pytest.mark.parametrize("model", MODELS)
def test_open_gates_leave_the_model_as_it_is(model: str) -> None:
    here = task("attention_gate", model)
    window = [int(t) for t in torch.randint(256, (32,), generator=torch.Generator().manual_seed(1))]
    parameters = here.start()
    parameters["out"].zero_()
    parameters["out.bias"].fill_(5.0)
    parts = here.loss(parameters, here.observe(window))
    logits = logits_of(here.backbone, window, 24)[:-1]
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(window[25:]))
    assert float(parts["language"]) == pytest.approx(float(expected), rel=1e-3)
    assert float(parts["eviction"]) == pytest.approx(2 * 0.75), "by each of two layers |1 - 0.25|"


def test_a_closed_gate_is_an_evicted_token() -> None:
    """The language loss behind gates is that of a decoder whose cache lost the tokens."""
    here = task("attention_gate")
    assert isinstance(here, AttentionGateTask)
    window, parameters = list(range(50, 82)), here.start()
    seen = here.observe(window)
    gates = straight_through(gate_logits(parameters, seen["normal"].float()))
    closed = 1 - gates.mean()
    assert 0 < closed < 1
    decoder, cache = Decoder(here.backbone.engine, here.backbone.spec, Full()), Cache.empty(2)
    run(decoder.prefill(run(decoder.embed(window[:24], 24, 0)), cache))
    for layer, gate in zip(cache.layers, gates, strict=True):
        layer.alive = gate
    steps = [run(decoder.step(run(decoder.embed([t], 1, cache.position)), cache)) for t in window[24:31]]
    expected = torch.nn.functional.cross_entropy(torch.cat(steps), torch.tensor(window[25:]))
    assert float(here.loss(parameters, seen)["language"]) == pytest.approx(float(expected), rel=2e-3)


def test_the_gates_loss_pulls_their_mean_from_both_sides() -> None:
    here = task("attention_gate", keep=0.5)
    seen = here.observe(list(range(32)))
    for bias, sign in ((5.0, 1.0), (-5.0, -1.0)):
        parameters = here.start()
        parameters["out.bias"].fill_(bias)
        parameters["out.bias"].requires_grad_()
        here.loss(parameters, seen)["eviction"].backward()
        gradient = parameters["out.bias"].grad
        assert gradient is not None
        assert bool((gradient.sign() == sign).all()), "descent closes what is too open, and opens what is too closed"


def gates_by_hand(parameters: Any, normal: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """Logits [kv_heads, n] of a layer's gates, and their largest attention score, written out head by head."""
    inner, kv_heads = parameters["in"][layer], parameters["out"].shape[2]
    width, largest, mixed = inner.shape[1] // (3 * kv_heads), torch.tensor(0.0), []
    q, k, v = (normal[layer] @ inner).chunk(3, dim=1)
    for head in range(kv_heads):
        at = slice(head * width, (head + 1) * width)
        scores = q[:, at] @ k[:, at].T / width**0.5
        largest = torch.maximum(largest, scores.abs().max())
        mixed.append(scores.softmax(-1) @ v[:, at])
    return (torch.cat(mixed, dim=1) @ parameters["out"][layer] + parameters["out.bias"][layer]).T, largest


@given(size=st.floats(0.1, 8), seed=st.integers(0, 99))
def test_gates_are_an_attention_whose_scores_stay_in_range_where_nothing_is_over(size: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(2, 12, 16, generator=generator)
    shapes = {"in": (2, 16, 18), "out": (2, 6, 2), "out.bias": (2, 2)}
    parameters = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    parameters["in"] *= size / 4
    logits, over = gate_logits(parameters, normal), excess(parameters, normal)
    for layer in range(2):
        expected, largest = gates_by_hand(parameters, normal, layer)
        torch.testing.assert_close(logits[layer], expected, rtol=1e-3, atol=1e-3)
        assert over > 0 or largest <= SCORE_LIMIT
    parameters["in"] *= 100
    assert excess(parameters, normal) > 0


def test_straight_through_is_a_step_with_the_sigmoids_slope() -> None:
    logits = torch.tensor([-3.0, -1e-6, 0.0, 2.0], requires_grad=True)
    gates = straight_through(logits)
    assert gates.tolist() == [0, 0, 1, 1]
    gates.sum().backward()
    soft = logits.detach().sigmoid()
    torch.testing.assert_close(logits.grad, soft * (1 - soft))


def test_gradients_stay_bounded_where_everything_with_attention_is_closed() -> None:
    here = task("attention_gate")
    seen = here.observe(list(range(32)))
    seen["k"][:, :, 0] *= 40  # a first token that takes it all
    parameters = {name: tensor.requires_grad_() for name, tensor in here.start().items()}
    sum(here.loss(parameters, seen).values()).backward()  # type: ignore[union-attr]
    for parameter in parameters.values():
        assert parameter.grad is not None
        assert float(parameter.grad.norm()) < 1e3


@pytest.mark.parametrize("kind", KINDS)
def test_training_lowers_the_loss_and_leaves_the_model_alone(kind: Any, tmp_path: Any) -> None:
    here = task(kind, windows=16, repeats=8, learning_rate=1e-2)
    before = {name: here.backbone.engine.parameter(name).clone() for name in ("embed", "layers.1.qkv", "lm_head")}
    text = read_text(write_text(tmp_path, words=600), here.backbone.tokenizer, 32)
    run_, losses = begin(here), list[dict[str, float]]()
    train(here, draw([text], 32, 16, 0), run_, lambda now: losses.append(now.history[-1]), silent)
    assert [set(loss) for loss in losses] == [set(here.objective)] * 4
    part = {"locret": "regression", "attention_gate": "eviction"}[kind]  # a model of noise reads no text better
    assert losses[-1][part] < 0.6 * losses[0][part]
    assert run_.step == 128
    for name, tensor in before.items():
        assert torch.equal(here.backbone.engine.parameter(name), tensor)


def test_a_loss_that_is_not_finite_ends_the_training_by_name() -> None:
    here = task("locret", windows=4)
    run_ = begin(here)
    run_.parameters["in"].data[0, 0, 0] = float("inf")
    with pytest.raises(TrainingError, match=r"learning_rate: 0.003 is too large, step 0"):
        train(here, [list(range(32))] * 4, run_, silent, silent)
