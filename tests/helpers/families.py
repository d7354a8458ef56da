"""A tiny model of every family, made by transformers' own classes, with sizes that hide no mistake."""

from collections.abc import Callable, Mapping
from typing import Any

from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from tests.helpers.saved_models import stirred, tiny_gpt2

WINDOW = 5
SIZES = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "pad_token_id": None, "bos_token_id": None, "eos_token_id": 2,
    "attn_implementation": "eager",
}  # fmt: skip
GROUPED = {**SIZES, "num_key_value_heads": 2}
WIDE = {**GROUPED, "head_dim": 10}
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10_000.0, "short_factor": [1.0, 1.5, 2.0], "long_factor": [1.5, 4.0, 9.0],
}  # fmt: skip
LOCAL = {
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}


def made(model: Any, config: Any, **fields: Any) -> Callable[[], PreTrainedModel]:
    def make() -> PreTrainedModel:
        return stirred(model(config(**fields)))

    return make


FAMILIES: Mapping[str, Callable[[], PreTrainedModel]] = {
    "llama": made(LlamaForCausalLM, LlamaConfig, **WIDE, attention_bias=True, mlp_bias=True),
    "mistral": made(MistralForCausalLM, MistralConfig, **WIDE, sliding_window=WINDOW),
    "qwen2": made(
        Qwen2ForCausalLM, Qwen2Config, **GROUPED, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1
    ),
    "qwen3": made(Qwen3ForCausalLM, Qwen3Config, **WIDE, tie_word_embeddings=True),
    "phi3": made(
        Phi3ForCausalLM,
        Phi3Config,
        **GROUPED,
        original_max_position_embeddings=14,
        rope_parameters={**LONGROPE, "partial_rotary_factor": 0.75},
    ),
    "smollm3": made(SmolLM3ForCausalLM, SmolLM3Config, **GROUPED, no_rope_layers=[1, 0]),
    "gemma2": made(
        Gemma2ForCausalLM,
        Gemma2Config,
        **WIDE,
        sliding_window=WINDOW,
        query_pre_attn_scalar=7,
        attn_logit_softcapping=20.0,
        final_logit_softcapping=8.0,
    ),
    "gemma3_text": made(
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        **WIDE,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"],
        query_pre_attn_scalar=7,
        rope_parameters=LOCAL,
    ),
    "gpt2": tiny_gpt2,
    "gpt_neox": made(GPTNeoXForCausalLM, GPTNeoXConfig, **SIZES, hidden_act="gelu"),
    "gpt_neox-sequential": made(
        GPTNeoXForCausalLM, GPTNeoXConfig, **SIZES, use_parallel_residual=False, attention_bias=False
    ),
}
