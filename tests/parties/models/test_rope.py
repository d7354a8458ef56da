"""Scaled rotary positions: transformers' own numbers at every position, or a refusal that names the key."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from orchestrator.quality.press import PressedModel
from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import run
from parties.engines.plain import PlainEngine
from parties.errors import ModelError
from parties.heads.format import fingerprint
from parties.metering.meter import StageMeter
from parties.models import ModelSpec, load_spec, load_weights
from parties.models.folding import fold, folded_shapes
from parties.policies import make
from tests.helpers.saved_models import logits, save, write_gguf

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SCALINGS = {
    "llama3": LLAMA3,
    "llama3-of-its-own-length": {key: value for key, value in LLAMA3.items() if not key.startswith("original")},
    "longchat": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 8.0},
    "old-key": {"type": "linear", "rope_theta": 10_000.0, "factor": 2.5},
    "dynamic-1": {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 1.0},
    "linear-1": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 1.0},
    "yarn-1": {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 1.0},
    "yarn": {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 64},
    "yarn-with-all-keys": {
        "rope_type": "yarn",
        "rope_theta": 10_000.0,
        "factor": 4.0,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "mscale": 1.2,
        "mscale_all_dim": 0.8,
        "truncate": False,
    },
    "longrope": {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
        "long_factor": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
        "original_max_position_embeddings": 64,
    },
    "longrope-with-a-factor": {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "short_factor": [1.5] * 8,
        "long_factor": [2.5] * 8,
        "original_max_position_embeddings": 300,
        "factor": 3.0,
        "attention_factor": 1.1,
    },
    "dynamic": {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0},
}
OWN_POSITIONS = {"dynamic": 100}
POSITIONS = 256
TOKENS = torch.randint(96, (POSITIONS,), generator=torch.Generator().manual_seed(3)).tolist()


def scaled_llama(rope: dict[str, Any], positions: int = POSITIONS) -> PreTrainedModel:
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=positions,
        rope_parameters=dict(rope),
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


def decoded(source: str) -> Tensor:
    """Our logits at every position, [n, vocab]."""
    spec, weights = load_spec(source), load_weights(source)
    engine = PlainEngine(StageMeter())
    run(engine.install(folded_shapes(spec), fold(spec, weights)))
    decoder, cache = Decoder(engine, spec, make("full")), Cache.empty(spec.n_layers)
    rows = run(decoder.follow(run(decoder.embed(TOKENS, POSITIONS, 0)), cache))
    assert isinstance(rows, Tensor)
    return rows


@pytest.mark.parametrize("name", SCALINGS)
def test_every_position_has_the_logits_of_transformers(name: str, tmp_path: Path) -> None:
    model = scaled_llama(SCALINGS[name], OWN_POSITIONS.get(name, POSITIONS))
    theirs = logits(model, TOKENS)
    assert float((decoded(str(save(model, tmp_path))) - theirs).abs().max()) < 1e-4
    assert float((theirs - logits(scaled_llama(LLAMA3 | {"factor": 3.0}), TOKENS)).abs().max()) > 1e-2  # it matters


def test_presses_work_on_the_same_scaled_model(tmp_path: Path) -> None:
    model = scaled_llama(LLAMA3)
    pressed = PressedModel(str(save(model, tmp_path)))
    cache = pressed.compress(TOKENS[:-1], contextlib.nullcontext)  # a press that keeps everything
    assert float((pressed.step(cache, TOKENS[-1]) - logits(model, TOKENS)[-1]).abs().max()) < 1e-4


def test_the_scaling_is_read_from_where_older_versions_keep_it(tmp_path: Path) -> None:
    model = scaled_llama(SCALINGS["longchat"])
    save(model, tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["rope_parameters"]
    path.write_text(json.dumps(config | {"rope_theta": 10_000.0, "rope_scaling": {"type": "linear", "factor": 8.0}}))
    assert float((decoded(str(tmp_path)) - logits(model, TOKENS)).abs().max()) < 1e-4


@pytest.mark.parametrize("key", ["rope__scaling__factor", "rope__scale_linear"])
def test_a_factor_without_a_type_scales_linearly_in_a_gguf(tmp_path: Path, key: str) -> None:
    model = scaled_llama(SCALINGS["longchat"])
    folder = str(save(model, tmp_path / "folder"))
    write_gguf(tmp_path / "model.gguf", unscaled(folder), load_weights(folder), **dict[str, Any]({key: 8.0}))
    assert float((decoded(str(tmp_path / "model.gguf")) - logits(model, TOKENS)).abs().max()) < 1e-4


def test_the_frequencies_of_a_gguf_are_those_of_llama_3(tmp_path: Path) -> None:
    model = scaled_llama(LLAMA3)
    folder = str(save(model, tmp_path / "folder"))
    write_gguf(tmp_path / "model.gguf", load_spec(folder), load_weights(folder))
    assert float((decoded(str(tmp_path / "model.gguf")) - logits(model, TOKENS)).abs().max()) < 1e-4


@pytest.mark.parametrize(
    "facts",
    [
        {"rope__scaling__type": "none", "rope__scaling__factor": 8.0},
        {"rope__scaling__type": "linear"},
        {"rope__scaling__factor": 1.0},
        {"rope__scaling__factor": 0.0},  # llama.cpp's word for none
    ],
)
def test_facts_of_a_gguf_that_scale_nothing(tmp_path: Path, facts: dict[str, Any]) -> None:
    folder = str(save(scaled_llama(SCALINGS["linear-1"]), tmp_path / "folder"))
    write_gguf(tmp_path / "model.gguf", load_spec(folder), load_weights(folder), **facts)
    assert load_spec(str(tmp_path / "model.gguf")).rope_divisors == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_type": "su"}, r"rope_type is 'su'; supported: default, dynamic, linear, llama3, longrope, yarn"),
        ({"rope_type": "yarn"}, "factor is None; it must be a positive number"),
        ({"rope_type": "dynamic", "alpha": 2.0}, "alpha is not supported"),
        ({"rope_type": "longrope", "long_factor": [1.0] * 8}, "short_factor is None; it must be a list of 8"),
        ({"rope_type": "longrope", "short_factor": [1.0] * 7 + [0]}, "short_factor is 0; it must be a positive number"),
        ({"rope_type": "default", "factor": 2.0}, r"rope_parameters\.factor"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"attention_factor": 1.2}, "attention_factor is not supported"),
        ({"full_attention": {"rope_type": "linear"}}, "full_attention is not supported"),
        ({"rope_type": "llama3", "factor": 8.0, "high_freq_factor": 4.0}, "low_freq_factor is None"),
        (LLAMA3 | {"low_freq_factor": 4.0}, "high_freq_factor is 4; it must be above low_freq_factor, 4"),
        ({"rope_type": "linear"}, "factor is None; it must be a positive number"),
        ({"rope_type": "linear", "factor": "2"}, "factor is '2'"),
        ({"rope_type": "linear", "factor": float("nan")}, "factor is nan"),
    ],
)
def test_unknown_scalings_are_refused_by_name(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    save(scaled_llama(SCALINGS["linear-1"]), tmp_path)
    path = tmp_path / "config.json"
    rope = {"rope_type": "default", "rope_theta": 10_000.0} | change
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rope_parameters": rope}))
    with pytest.raises(ModelError, match=f"rope_parameters.*{message.removeprefix('rope_parameters')}"):
        load_spec(str(tmp_path))


@pytest.mark.parametrize("divisors", [[1.0], [0.0] * 8, [float("inf")] * 8, ["1"] * 8])
def test_impossible_divisors_from_a_peer(divisors: list[object]) -> None:
    facts = load_spec("random:tiny-llama").to_json()
    with pytest.raises(ModelError, match=r"rope_divisors is .* 8 positive numbers"):
        ModelSpec.from_json(facts | {"rope_divisors": divisors})


def test_scaled_models_survive_json_and_others_keep_their_fingerprint(tmp_path: Path) -> None:
    spec = load_spec(str(save(scaled_llama(LLAMA3), tmp_path)))
    assert ModelSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    plain = unscaled(str(tmp_path))
    assert "rope_divisors" not in plain.to_json()
    weights = load_weights(str(tmp_path))
    assert fingerprint(spec, weights) != fingerprint(plain, weights)


def unscaled(source: str) -> ModelSpec:
    facts = load_spec(source).to_json()
    del facts["rope_divisors"]
    return ModelSpec.from_json(facts)
