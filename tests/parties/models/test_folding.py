"""Folded parameters give the results of the model."""

import dataclasses

import pytest
import torch

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import run
from parties.engines.plain import PlainEngine
from parties.metering.meter import StageMeter
from parties.models.folding import Folded, fold, folded_shapes
from parties.models.spec import ModelSpec
from parties.policies import Full
from tests.helpers.naive_decoder import forward
from tests.helpers.tiny import GPT2, LLAMA, random_tokens, random_weights

SPECS = {
    "llama": LLAMA,
    "llama_untied_with_bias": dataclasses.replace(LLAMA, tied=False, qkv_bias=True),
    "gpt2": GPT2,
    "gpt2_exact_gelu": dataclasses.replace(GPT2, activation="gelu"),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_shapes_are_those_announced(spec: ModelSpec) -> None:
    folded = fold(spec, random_weights(spec))
    assert {name: tuple(tensor.shape) for name, tensor in folded.items()} == folded_shapes(spec)
    assert all(tensor.dtype == torch.float32 and tensor.is_contiguous() for tensor in folded.values())


def test_layer_by_layer_every_parameter_is_the_same_in_any_order() -> None:
    spec, weights = SPECS["llama_untied_with_bias"], random_weights(SPECS["llama_untied_with_bias"])
    whole, by_layer = fold(spec, weights), Folded(spec, weights)
    for name in sorted(whole, key=lambda name: name[::-1]):
        assert torch.equal(by_layer[name], whole[name])
    assert "layers.0.unknown" not in by_layer


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_prefill_and_steps_give_the_models_logits(spec: ModelSpec) -> None:
    weights, tokens = random_weights(spec, seed=3), random_tokens(spec, 24)
    engine = PlainEngine(StageMeter())
    run(engine.install(folded_shapes(spec), fold(spec, weights)))
    decoder, cache = Decoder(engine, spec, Full()), Cache.empty(spec.n_layers)
    run(decoder.prefill(run(decoder.embed(tokens[:20], 20, 0)), cache))
    logits = []
    for token in tokens[20:]:
        logits.append(run(decoder.step(run(decoder.embed([token], 1, cache.position)), cache)))
    expected = forward(spec, weights, tokens, dtype=torch.float64)[20:]
    assert (torch.cat(logits) - expected).abs().max() < 1e-5
