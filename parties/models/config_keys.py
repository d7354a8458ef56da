"""The keys of `config.json` that change what a model of each family computes; what is not understood is refused."""

import re
from collections.abc import Mapping
from typing import Any

from parties.errors import ModelError

# Other values change what the model computes; the first one is the default.
_Only = dict[str, tuple[Any, ...]]
_ALL: _Only = {
    "quantization_config": (None,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "is_encoder_decoder": (False,),
    "pruned_heads": (None, {}),
    "chunk_size_feed_forward": (0, None),
}
_ROTARY: _Only = _ALL | {
    "attention_chunk_size": (None,),
    "num_local_experts": (None, 0, 1),
    "rope_interleaved": (False,),
    "rope_percentage": (None, 1.0),
    "use_mrope": (False,),
    "lm_head_bias": (False,),
    "full_attn_mod": (1,),
}
_WHOLE_HEADS: _Only = _ROTARY | {"partial_rotary_factor": (None, 1.0)}
_NO_WINDOW: _Only = {"sliding_window": (None,), "use_sliding_window": (False, None)}
_NO_BIAS: _Only = {"attention_bias": (False, None), "mlp_bias": (False, None)}
_CAUSAL: _Only = {"use_bidirectional_attention": (None, False), "mlp_bias": (False, None)}

# Keys that `config_facts` reads.
_WINDOWED = {"sliding_window", "layer_types"}
_SOME_WINDOWS = _WINDOWED | {"use_sliding_window", "max_window_layers"}
_ROPE = {"rope_parameters", "rope_scaling", "rope_theta"}
_SIZES = {
    "head_dim", "hidden_size", "max_position_embeddings", "num_attention_heads", "num_hidden_layers",
    "num_key_value_heads", "rms_norm_eps", "tie_word_embeddings",
}  # fmt: skip
_LLAMA = _SIZES | _ROPE | {"hidden_act", "layer_types", "max_window_layers"}
_GEMMA = _SIZES | _ROPE | _WINDOWED | {
    "hidden_act", "hidden_activation", "attention_bias", "query_pre_attn_scalar", "attn_logit_softcapping",
    "final_logit_softcapping",
}  # fmt: skip
_WITHOUT_EFFECT = {
    "attention_dropout", "attention_probs_dropout_prob", "attn_pdrop", "embd_pdrop", "hidden_dropout",
    "hidden_dropout_prob", "resid_pdrop", "output_attentions", "output_hidden_states", "attn_implementation",
    "_attn_implementation", "_attn_implementation_autoset", "tie_encoder_decoder", "reorder_and_upcast_attn",
}  # fmt: skip
# A key whose name matches belongs to the architecture; such a key that is not listed above is refused.
_ARCHITECTURE = re.compile(
    r"rope|rotary|attn|attention|norm|scal|window|chunk|expert|moe|router|bias|cap|multiplier|quant|position|mlp|head|"
    r"hidden|layer|embd|embed|kv|lora|adapter|residual|parallel|alibi|mup"
)


KEYS: Mapping[str, tuple[_Only, set[str]]] = {
    "llama": (_WHOLE_HEADS | _NO_WINDOW, _LLAMA | set(_NO_BIAS)),
    "mistral": (_WHOLE_HEADS | _NO_BIAS, _LLAMA | _WINDOWED),
    "qwen2": (_WHOLE_HEADS, _LLAMA | _SOME_WINDOWS),
    "qwen3": (_WHOLE_HEADS, _LLAMA | _SOME_WINDOWS | {"attention_bias"}),
    "phi3": (
        _ROTARY | _NO_BIAS,
        _LLAMA | _WINDOWED | {"partial_rotary_factor", "original_max_position_embeddings"},
    ),
    "smollm3": (
        _WHOLE_HEADS,
        _LLAMA | _SOME_WINDOWS | set(_NO_BIAS) | {"no_rope_layers", "no_rope_layer_interval"},
    ),
    "gemma2": (_WHOLE_HEADS | _CAUSAL, _GEMMA),
    "gemma3_text": (
        _WHOLE_HEADS | _CAUSAL,
        _GEMMA | {"rope_local_base_freq", "sliding_window_pattern", "_sliding_window_pattern"},
    ),
    "gpt2": (
        _ALL | {"scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,)},
        {"n_embd", "n_head", "n_layer", "n_positions", "layer_norm_epsilon", "tie_word_embeddings"},
    ),
    "gpt_neox": (
        _ROTARY,
        _SIZES
        | _ROPE
        | {"hidden_act", "layer_norm_eps", "rotary_pct", "rotary_emb_base", "use_parallel_residual", "attention_bias"},
    ),
}
"""For each family the values that it allows, and the keys that its reader understands (`config_facts`)."""


def check_keys(config: Mapping[str, Any], family: str) -> None:
    """Refuses every key that changes what the model computes and would otherwise be ignored.

    Raises:
        ModelError: There is such a key.
    """
    only, understood = KEYS[family]
    for name, allowed in only.items():
        if config.get(name, allowed[0]) not in allowed:
            raise ModelError(f"{name} is {config[name]!r}; supported: {allowed[0]!r}")
    for name, value in config.items():
        known = name in only or name in understood or name in _WITHOUT_EFFECT
        if not known and value is not None and _ARCHITECTURE.search(name):
            raise ModelError(
                f"{name} is {value!r}, which the decoder does not support; supported: a {family} model without it"
            )
    kinds = {"full_attention"} | ({"sliding_attention"} if "sliding_window" in understood else set())
    if other := set(map(str, config.get("layer_types") or ())) - kinds:
        supported = " or ".join(sorted(map(repr, kinds)))
        raise ModelError(f"layer_types is {min(other)!r} somewhere; supported: {supported}")
