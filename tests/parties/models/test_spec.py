"""Guarantees of a model's public facts."""

import json
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parties.errors import ModelError
from parties.models import ModelSpec, load_spec

sizes = st.integers(1, 50)


@st.composite
def specs(draw: st.DrawFn) -> ModelSpec:
    families: tuple[Literal["llama", "gpt2"], ...] = ("llama", "gpt2")
    family = draw(st.sampled_from(families))
    kv_heads, group = draw(st.integers(1, 4)), draw(st.integers(1, 4)) if family == "llama" else 1
    return ModelSpec(
        family=family,
        n_layers=draw(st.integers(1, 5)),
        hidden=draw(sizes),
        n_heads=kv_heads * group,
        n_kv_heads=kv_heads,
        head_dim=2 * draw(sizes),
        intermediate=draw(sizes),
        vocab=draw(st.integers(10, 100)),
        max_positions=draw(sizes),
        norm_eps=draw(st.floats(1e-8, 1e-3)),
        activation=draw(st.sampled_from(["silu", "gelu_tanh", "gelu"])),
        tied=draw(st.booleans()),
        qkv_bias=draw(st.booleans()),
        eos_ids=tuple(draw(st.lists(st.integers(0, 9), max_size=3))),
    )


@given(specs())
def test_survives_json(spec: ModelSpec) -> None:
    assert ModelSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    ("shape", "parameters"),
    # As published on the models' pages; a tied matrix counts once.
    [
        ("smollm2-135m", 134_515_008),
        ("gpt2", 124_439_808),
        ("llama-7b", 6_738_415_616),
        ("llama-3.1-8b", 8_030_261_248),
        ("mistral-7b", 7_248_023_552),
        ("qwen2.5-0.5b", 494_032_768),
        ("qwen2.5-1.5b", 1_543_714_304),
        ("qwen2.5-7b", 7_615_616_512),
        ("gemma-2-2b", 2_614_341_888),
    ],
)
def test_counts_the_parameters_of_known_models(shape: str, parameters: int) -> None:
    assert load_spec(f"random:{shape}").parameters == parameters


def test_names_of_a_llama_layer() -> None:
    shapes = load_spec(
        "random:llama?layers=1&hidden=32&heads=4&kv_heads=2&intermediate=40&vocab=50&qkv_bias=true"
    ).shapes()
    assert shapes == {
        "embed": (50, 32),
        "layers.0.attn_norm.weight": (32,),
        "layers.0.q.weight": (32, 32),
        "layers.0.q.bias": (32,),
        "layers.0.k.weight": (32, 16),
        "layers.0.k.bias": (16,),
        "layers.0.v.weight": (32, 16),
        "layers.0.v.bias": (16,),
        "layers.0.o.weight": (32, 32),
        "layers.0.mlp_norm.weight": (32,),
        "layers.0.gate.weight": (32, 40),
        "layers.0.up.weight": (32, 40),
        "layers.0.down.weight": (40, 32),
        "final_norm.weight": (32,),
    }


def test_gpt2_has_biases_and_positions_and_no_gate() -> None:
    spec = load_spec("random:gpt2?layers=1&tied=false")
    shapes = spec.shapes()
    assert shapes["positions"] == (1024, 768)
    assert shapes["lm_head.weight"] == (768, 50_257)
    assert "layers.0.gate.weight" not in shapes
    matrices = [name for name in shapes if name.startswith("layers.0.") and name.endswith(".weight")]
    assert all(name.replace(".weight", ".bias") in shapes for name in matrices)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("family", "mamba"),
        ("activation", "relu"),
        ("n_layers", 0),
        ("n_layers", 10**9),
        ("hidden", -1),
        ("hidden", 64.0),
        ("vocab", True),
        ("norm_eps", 0.0),
        ("norm_eps", float("nan")),
        ("rope_theta", float("inf")),
        ("tied", "yes"),
        ("n_kv_heads", 3),
        ("windows", [4, 4, 4]),
        ("windows", [4, 4, 4, -1]),
        ("unrotated", [4]),
        ("rope_dims", 18),
        ("rope_dims", 3),
        ("rope_growth", -1.0),
        ("rope_original", 64),
        ("score_cap", float("inf")),
        ("parallel", 1),
        ("head_dim", 15),
        ("eos_ids", [256]),
    ],
)
def test_refuses_an_impossible_value_by_name(field: str, value: object) -> None:
    facts = load_spec("random:tiny-llama").to_json()
    with pytest.raises(ModelError, match=f"{field} is .* must be"):
        ModelSpec.from_json(facts | {field: value})


def test_fields_at_their_default_are_left_out_so_that_earlier_records_keep_their_ids() -> None:
    names = {"family", "n_layers", "hidden", "n_heads", "n_kv_heads", "head_dim", "intermediate", "vocab"}
    names |= {"max_positions", "norm_eps", "activation", "tied", "rope_theta", "qkv_bias", "eos_ids"}
    assert load_spec("random:tiny-llama").to_json().keys() == load_spec("random:tiny-gpt2").to_json().keys() == names


def test_refuses_missing_and_unknown_fields() -> None:
    facts = load_spec("random:tiny-llama").to_json()
    with pytest.raises(ModelError, match="depth"):
        ModelSpec.from_json(facts | {"depth": 3})
    del facts["hidden"]
    with pytest.raises(ModelError, match="hidden"):
        ModelSpec.from_json(facts)
