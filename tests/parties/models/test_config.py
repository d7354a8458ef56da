"""Configurations as published models have them, many in the format of earlier versions of transformers."""

import json
from pathlib import Path
from typing import Any

import pytest

from parties.errors import ModelError
from parties.models import ModelSpec, load_spec

SHORT = {
    "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 128,
    "intermediate_size": 256, "vocab_size": 1000, "max_position_embeddings": 4096,
}  # fmt: skip
QWEN2 = {
    "model_type": "qwen2", "attention_dropout": 0.0, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1e6,
    "max_window_layers": 2, "sliding_window": 64, "use_sliding_window": False, "use_mrope": False,
    "tie_word_embeddings": True,
}  # fmt: skip
GEMMA2 = {
    "model_type": "gemma2", "attention_bias": False, "attn_logit_softcapping": 50.0, "cache_implementation": "hybrid",
    "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 224, "rope_theta": 10_000.0,
    "sliding_window": 64, "rms_norm_eps": 1e-6,
}  # fmt: skip
GEMMA3 = {
    "model_type": "gemma3_text", "attn_logit_softcapping": None, "final_logit_softcapping": None, "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 256, "rope_local_base_freq": 10_000,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "rope_theta": 1_000_000, "sliding_window": 64,
    "sliding_window_pattern": 3,
}  # fmt: skip
PHI3 = {
    "model_type": "phi3", "attention_bias": False, "embd_pdrop": 0.0, "full_attn_mod": 1, "lm_head_bias": False,
    "original_max_position_embeddings": 1024, "partial_rotary_factor": 0.75, "resid_pdrop": 0.0, "rope_theta": 1e4,
    "rope_scaling": {"type": "su", "short_factor": [1.0] * 6, "long_factor": [2.0] * 6}, "sliding_window": 9999,
    "tie_word_embeddings": False,
}  # fmt: skip
PYTHIA = {
    "model_type": "gpt_neox", "hidden_act": "gelu", "layer_norm_eps": 1e-5, "rotary_emb_base": 20_000,
    "rotary_pct": 0.25, "use_parallel_residual": True, "hidden_dropout_prob": 0, "num_key_value_heads": None,
}  # fmt: skip
PUBLISHED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "qwen2": (QWEN2, {"qkv_bias": True, "o_bias": False, "windows": (), "tied": True}),
    "qwen2 with windows": (QWEN2 | {"use_sliding_window": True}, {"windows": (0, 0, 64, 64)}),
    "mistral of 2023": ({"model_type": "mistral", "sliding_window": 64}, {"windows": (64,) * 4, "tied": False}),
    "mistral": ({"model_type": "mistral", "sliding_window": None, "head_dim": None}, {"windows": (), "head_dim": 16}),
    "gemma2": (
        GEMMA2,
        {"windows": (64, 0, 64, 0), "query_width": 224.0, "score_cap": 50.0, "logit_cap": 30.0, "tied": True},
    ),
    "gemma3": (
        GEMMA3,
        {"windows": (64, 64, 0, 64), "rope_divisors": (8.0,) * 128, "local_rope_theta": 1e4, "rope_theta": 1e6},
    ),
    "phi3": (PHI3, {"rope_dims": 12, "rope_original": 1024, "rope_long_divisors": (2.0,) * 6}),
    "smollm3": ({"model_type": "smollm3", "use_sliding_window": False}, {"unrotated": (3,), "rope_theta": 2e6}),
    "qwen3": ({"model_type": "qwen3", "head_dim": 128, "attention_bias": False}, {"head_dim": 128, "qkv_bias": False}),
    "pythia": (PYTHIA, {"rope_dims": 4, "rope_theta": 2e4, "parallel": True, "n_kv_heads": 8}),
}


def read(folder: Path, config: dict[str, Any]) -> ModelSpec:
    (folder / "config.json").write_text(json.dumps(SHORT | config))
    return load_spec(str(folder))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_configuration_is_read(name: str, tmp_path: Path) -> None:
    config, expected = PUBLISHED[name]
    spec = read(tmp_path, config)
    assert {field: getattr(spec, field) for field in expected} == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (QWEN2 | {"use_mrope": True}, "use_mrope is True"),
        (
            QWEN2 | {"layer_types": ["chunked_attention"]},
            "layer_types is 'chunked_attention' somewhere; supported: 'full",
        ),
        (GEMMA2 | {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
        (GEMMA3 | {"rope_parameters": {"sliding_attention": {"rope_type": "yarn"}}, "rope_scaling": None}, "'yarn'"),
        (PHI3 | {"full_attn_mod": 2}, "full_attn_mod is 2"),
        ({"model_type": "qwen3", "partial_rotary_factor": 0.5}, r"partial_rotary_factor is 0\.5"),
        ({"model_type": "gemma3"}, "model_type is 'gemma3'; supported: llama, mistral"),
    ],
)
def test_what_the_decoder_does_not_support_is_refused_by_name(
    config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        read(tmp_path, config)
