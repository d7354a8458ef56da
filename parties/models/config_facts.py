"""Reads what a `ModelSpec` says of a model from the keys of its `config.json`, by family."""

from collections.abc import Callable, Mapping
from typing import Any

from parties.errors import ModelError
from parties.models.rope import read_rope

Config = Mapping[str, Any]
Facts = dict[str, Any]

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


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


READERS: Mapping[str, Callable[[Config], Facts]] = {
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen,
    "qwen3": _qwen,
    "phi3": _phi3,
    "smollm3": _smollm3,
    "gemma2": _gemma,
    "gemma3_text": _gemma,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
}
"""For each family, what gives the fields of its `ModelSpec`, but for the family and the end-of-text tokens."""
