"""Reads `config.json` of a transformers checkpoint into a `ModelSpec`, or explains why the decoder cannot run it."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from parties.errors import ModelError
from parties.models.rope import read_rope
from parties.models.spec import ModelSpec
from parties.text_file import Unreadable, read_text

Config = Mapping[str, Any]
Facts = dict[str, Any]

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}

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

# Keys that are read below.
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


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ModelError: The file is missing, unreadable or not a JSON object.
    """
    try:
        content = json.loads(read_text(path))
    except (Unreadable, ValueError, RecursionError) as error:
        raise ModelError(f"cannot read {path}: {error}; fetch the model again") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds a {type(content).__name__}, not a JSON object; fetch the model again")
    return content


def read_config(folder: Path) -> ModelSpec:
    """The specification of the model in a folder.

    Raises:
        ModelError: A field is missing or invalid, or requests something that the decoder does not support.
    """
    path = folder / "config.json"
    config = read_json(path)
    family = config.get("model_type")
    if family not in list(_FAMILIES):
        raise ModelError(f"{path}: model_type is {family!r}; supported: {', '.join(_FAMILIES)}")
    generation = folder / "generation_config.json"
    eos = _token_ids(config) | (_token_ids(read_json(generation)) if generation.exists() else set())
    try:
        only, understood, read = _FAMILIES[family]
        _check_keys(config, family, only, understood)
        facts = read(config)
        # A token beyond the vocabulary cannot occur; small test models inherit such defaults.
        known = tuple(sorted(token for token in eos if token < facts["vocab"]))
        return ModelSpec(family=family, **facts, eos_ids=known)
    except KeyError as error:
        raise ModelError(f"{path}: field {error.args[0]} is missing; fetch the model again") from error
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise ModelError(f"{path}: a field has an invalid value: {error}; fetch the model again") from error
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def _check_keys(config: Config, family: str, only: _Only, understood: set[str]) -> None:
    """Refuses every key that changes what the model computes and would otherwise be ignored.

    Raises:
        ModelError: There is such a key.
    """
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


def _gpt2(config: Config) -> Facts:
    hidden, heads = config["n_embd"], config["n_head"]
    return {
        "n_layers": config["n_layer"],
        "hidden": hidden,
        "n_heads": heads,
        "n_kv_heads": heads,
        "head_dim": hidden // heads,
        "intermediate": config.get("n_inner") or 4 * hidden,
        "vocab": config["vocab_size"],
        "max_positions": config["n_positions"],
        "norm_eps": float(config.get("layer_norm_epsilon", 1e-5)),
        "activation": _activation(config, "activation_function", "gelu_new"),
        "tied": config.get("tie_word_embeddings", True),
    }


def _sizes(config: Config, *, tied: bool = False) -> Facts:
    """The sizes of a model with rotary positions."""
    heads = config["num_attention_heads"]
    return {
        "n_layers": config["num_hidden_layers"],
        "hidden": config["hidden_size"],
        "n_heads": heads,
        "n_kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or config["hidden_size"] // heads,
        "intermediate": config["intermediate_size"],
        "vocab": config["vocab_size"],
        "max_positions": config.get("max_position_embeddings", 2048),
        "norm_eps": float(config.get("rms_norm_eps", 1e-6)),
        "activation": _activation(config, "hidden_act", "silu"),
        "tied": config.get("tie_word_embeddings", tied),
    }


def _llama(config: Config, *, tied: bool = False) -> Facts:
    bias = bool(config.get("attention_bias"))
    biases = {"qkv_bias": bias, "o_bias": bias, "mlp_bias": bool(config.get("mlp_bias"))}
    return _rotary(config, _sizes(config, tied=tied) | biases)


def _mistral(config: Config) -> Facts:
    sizes = _sizes(config)
    return _rotary(config, sizes | _windows(config, sizes["n_layers"], "every"))


def _qwen(config: Config) -> Facts:
    """Qwen 2 has biases where Qwen 3 has norms; layers from `max_window_layers` on have a window."""
    sizes = _sizes(config)
    own: Facts = {"qkv_bias": True}
    if config["model_type"] == "qwen3":
        bias = bool(config.get("attention_bias"))
        own = {"qkv_bias": bias, "o_bias": bias, "head_dim": config.get("head_dim") or 128}
    if config.get("use_sliding_window"):
        own |= _windows(config, sizes["n_layers"], "last")
    return _rotary(config, sizes | own)


def _phi3(config: Config) -> Facts:
    sizes = _sizes(config)
    facts = sizes | _windows(config, sizes["n_layers"], "every")
    return _rotary(config, facts, config.get("original_max_position_embeddings"))


def _smollm3(config: Config) -> Facts:
    """Every fourth layer is not rotated, and has the window if there is one."""
    facts, every = _llama(config, tied=True), config.get("no_rope_layer_interval", 4)
    layers = range(facts["n_layers"])
    rotated = config.get("no_rope_layers") or [(layer + 1) % every != 0 for layer in layers]
    facts["unrotated"] = tuple(layer for layer in layers if not rotated[layer])
    if not config.get("use_sliding_window"):
        return facts
    kinds = config.get("layer_types") or [_KINDS[not rotated[layer]] for layer in layers]
    return facts | _windows({**config, "layer_types": kinds}, len(layers), "every")


def _gemma(config: Config) -> Facts:
    """Gemma 2 and 3: capped scores, embeddings times the root of their width, windows in most layers."""
    sizes = _sizes(config, tied=True)
    third, bias = config["model_type"] == "gemma3_text", bool(config.get("attention_bias"))
    caps = (None, None) if third else (50.0, 30.0)
    facts = sizes | {
        "head_dim": config.get("head_dim") or 256,
        "activation": _activation(config, "hidden_activation", "gelu_pytorch_tanh"),
        "qkv_bias": bias,
        "o_bias": bias,
        "embed_scale": float(sizes["hidden"]) ** 0.5,
        "query_width": float(config.get("query_pre_attn_scalar", 256)),
        "score_cap": float(config.get("attn_logit_softcapping", caps[0]) or 0),
        "logit_cap": float(config.get("final_logit_softcapping", caps[1]) or 0),
    }
    facts |= _windows(config, sizes["n_layers"], "most")
    return _two_bases(config, facts) if third else _rotary(config, facts)


def _gpt_neox(config: Config) -> Facts:
    bias = config.get("attention_bias", True)
    own = {
        "norm_eps": float(config.get("layer_norm_eps", 1e-5)),
        "activation": _activation(config, "hidden_act", "gelu"),
        "qkv_bias": bias,
        "o_bias": bias,
        "mlp_bias": True,
        "parallel": config.get("use_parallel_residual", True),
    }
    older = {"rope_theta": config.get("rotary_emb_base"), "partial_rotary_factor": config.get("rotary_pct", 0.25)}
    known = {name: value for name, value in older.items() if value is not None}
    return _rotary({**known, **config}, _sizes(config) | own)


_KINDS = ("full_attention", "sliding_attention")


def _windows(config: Config, n_layers: int, layers: str) -> Facts:
    """Windows by `layer_types`, or of `every` layer, of `most` (all but each n-th) or of the `last` ones."""
    window = config.get("sliding_window", 4096)
    if window is None:
        return {}
    if (kinds := config.get("layer_types")) is None:
        pattern = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern")
        pattern = pattern or (6 if config["model_type"] == "gemma3_text" else 2)
        windowed = {
            "every": [True] * n_layers,
            "most": [(layer + 1) % pattern != 0 for layer in range(n_layers)],
            "last": [layer >= config.get("max_window_layers", 28) for layer in range(n_layers)],
        }[layers]
    else:
        windowed = [kind == "sliding_attention" for kind in kinds]
    return {"windows": tuple(window if has else 0 for has in windowed) if any(windowed) else ()}


def _rotary(config: Config, facts: Facts, original: int | None = None) -> Facts:
    """Adds rotary positions to the facts of a model."""
    name, rope = _rope(config)
    if config["model_type"] == "phi3" and rope.get("rope_type", rope.get("type")) in ("su", "yarn"):
        rope = {**rope, "rope_type": "longrope"}  # earlier names of the same scaling
    theta = float(rope.get("rope_theta", config.get("rope_theta") or _THETA.get(config["model_type"], 10_000.0)))
    part = rope.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    part = 1.0 if part is None else part
    if part != 1 and config["model_type"] not in ("phi3", "gpt_neox"):
        raise ModelError(f"{name}.partial_rotary_factor is {part!r}; supported: 1.0, the whole head")
    dims = int(facts["head_dim"] * part)
    scaling = read_rope(name, rope, theta, dims, facts["max_positions"], original)
    return facts | {"rope_theta": theta, "rope_dims": 0 if dims == facts["head_dim"] else dims} | scaling


_THETA = {"smollm3": 2_000_000.0}


def _two_bases(config: Config, facts: Facts) -> Facts:
    """Adds the rotary positions of Gemma 3: scaled ones in layers without a window, and others in those with one."""
    name, rope = _rope(config)
    whole, local = rope, {"rope_theta": config.get("rope_local_base_freq", 10_000.0)}
    if rope.keys() & set(_KINDS):
        name, whole, local = f"{name}.full_attention", *(rope.get(kind) or {} for kind in _KINDS)
        if other := sorted(set(rope) - set(_KINDS)):
            raise ModelError(f"{name}.{other[0]} is not supported; supported: {' and '.join(_KINDS)}")
    if (kind := local.get("rope_type", "default")) != "default":
        raise ModelError(f"sliding_attention.rope_type is {kind!r}; supported: 'default'")
    theta = whole.get("rope_theta", config.get("rope_theta", 1_000_000.0))
    facts = _rotary({"model_type": config["model_type"], "rope_parameters": {**whole, "rope_theta": theta}}, facts)
    return facts | {"local_rope_theta": float(local.get("rope_theta", 10_000.0))}


def _rope(config: Config) -> tuple[str, Mapping[str, Any]]:
    """The scaling of rotary frequencies: in `rope_parameters` since transformers 5, before that in `rope_scaling`."""
    given = {name: config[name] for name in ("rope_scaling", "rope_parameters") if config.get(name)}
    if len(given) == 2 and given["rope_scaling"] != given["rope_parameters"]:
        raise ModelError("rope_scaling and rope_parameters differ; keep only the correct one")
    name = next(iter(given), "rope_parameters")
    return name, given.get(name, {})


def _activation(config: Config, name: str, default: str) -> str:
    kind = config.get(name) or default
    if kind not in ACTIVATIONS:
        raise ModelError(f"{name} is {kind!r}; supported: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[kind]


def _token_ids(config: Config) -> set[int]:
    """`eos_token_id` is absent, a number or a list of numbers."""
    ids = config.get("eos_token_id")
    return {token for token in (ids if isinstance(ids, list) else [ids]) if isinstance(token, int)}


_FAMILIES: Mapping[str, tuple[_Only, set[str], Callable[[Config], Facts]]] = {
    "llama": (_WHOLE_HEADS | _NO_WINDOW, _LLAMA | set(_NO_BIAS), _llama),
    "mistral": (_WHOLE_HEADS | _NO_BIAS, _LLAMA | _WINDOWED, _mistral),
    "qwen2": (_WHOLE_HEADS, _LLAMA | _SOME_WINDOWS, _qwen),
    "qwen3": (_WHOLE_HEADS, _LLAMA | _SOME_WINDOWS | {"attention_bias"}, _qwen),
    "phi3": (
        _ROTARY | _NO_BIAS,
        _LLAMA | _WINDOWED | {"partial_rotary_factor", "original_max_position_embeddings"},
        _phi3,
    ),
    "smollm3": (
        _WHOLE_HEADS,
        _LLAMA | _SOME_WINDOWS | set(_NO_BIAS) | {"no_rope_layers", "no_rope_layer_interval"},
        _smollm3,
    ),
    "gemma2": (_WHOLE_HEADS | _CAUSAL, _GEMMA, _gemma),
    "gemma3_text": (
        _WHOLE_HEADS | _CAUSAL,
        _GEMMA | {"rope_local_base_freq", "sliding_window_pattern", "_sliding_window_pattern"},
        _gemma,
    ),
    "gpt2": (
        _ALL | {"scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,)},
        {"n_embd", "n_head", "n_layer", "n_positions", "layer_norm_epsilon", "tie_word_embeddings"},
        _gpt2,
    ),
    "gpt_neox": (
        _ROTARY,
        _SIZES
        | _ROPE
        | {"hidden_act", "layer_norm_eps", "rotary_pct", "rotary_emb_base", "use_parallel_residual", "attention_bias"},
        _gpt_neox,
    ),
}
"""For each family the values that it allows, the keys that it understands, and its reader."""
