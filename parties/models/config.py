"""Reads `config.json` of a transformers checkpoint into a `ModelSpec`, or explains why the decoder cannot run it."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parties.errors import ModelError
from parties.models.rope import divisors
from parties.models.spec import ModelSpec
from parties.text_file import Unreadable, read_text

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}

# Other values change what the model computes; the first one is the default.
_BOTH: dict[str, tuple[Any, ...]] = {
    "quantization_config": (None,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "is_encoder_decoder": (False,),
    "pruned_heads": (None, {}),
    "chunk_size_feed_forward": (0, None),
}
_ONLY: dict[str, dict[str, tuple[Any, ...]]] = {
    "llama": _BOTH
    | {
        "attention_bias": (False, None),
        "mlp_bias": (False, None),
        "sliding_window": (None,),
        "use_sliding_window": (False, None),
        "attention_chunk_size": (None,),
        "num_local_experts": (None, 0, 1),
        "partial_rotary_factor": (None, 1.0),
        "rope_interleaved": (False,),
        "rope_percentage": (None, 1.0),
    },
    "gpt2": _BOTH | {"scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,)},
}

# Read below, or without effect on what the model computes.
_UNDERSTOOD: dict[str, set[str]] = {
    "llama": {
        "head_dim", "hidden_act", "hidden_size", "max_position_embeddings", "num_attention_heads", "num_hidden_layers",
        "num_key_value_heads", "rms_norm_eps", "rope_parameters", "rope_scaling", "rope_theta", "layer_types",
        "tie_word_embeddings", "attention_dropout", "hidden_dropout", "output_attentions", "output_hidden_states",
        "attn_implementation", "_attn_implementation", "_attn_implementation_autoset", "max_window_layers",
        "tie_encoder_decoder",
    },
    "gpt2": {
        "n_embd", "n_head", "n_layer", "n_positions", "layer_norm_epsilon", "tie_word_embeddings", "attn_pdrop",
        "embd_pdrop", "reorder_and_upcast_attn", "output_attentions", "output_hidden_states", "attn_implementation",
        "_attn_implementation", "_attn_implementation_autoset", "tie_encoder_decoder",
    },
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
        ModelError: A field is missing or invalid, or requests something other than a plain Llama or GPT-2 model.
    """
    path = folder / "config.json"
    config = read_json(path)
    family = config.get("model_type")
    if family not in list(_ONLY):
        raise ModelError(f"{path}: model_type is {family!r}; supported: {', '.join(_ONLY)}")
    generation = folder / "generation_config.json"
    eos = _token_ids(config) | (_token_ids(read_json(generation)) if generation.exists() else set())
    try:
        _check_keys(config, family)
        facts = _llama(config) if family == "llama" else _gpt2(config)
        # A token beyond the vocabulary cannot occur; small test models inherit such defaults.
        known = tuple(sorted(token for token in eos if token < facts["vocab"]))
        return ModelSpec(**facts, eos_ids=known)
    except KeyError as error:
        raise ModelError(f"{path}: field {error.args[0]} is missing; fetch the model again") from error
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise ModelError(f"{path}: a field has an invalid value: {error}; fetch the model again") from error
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def _check_keys(config: Mapping[str, Any], family: str) -> None:
    """Refuses every key that changes what the model computes and would otherwise be ignored.

    Raises:
        ModelError: There is such a key.
    """
    only = _ONLY[family]
    for name, allowed in only.items():
        if config.get(name, allowed[0]) not in allowed:
            raise ModelError(f"{name} is {config[name]!r}; supported: {allowed[0]!r}")
    for name, value in config.items():
        known = name in only or name in _UNDERSTOOD[family]
        if not known and value is not None and _ARCHITECTURE.search(name):
            raise ModelError(
                f"{name} is {value!r}, which the decoder does not support; supported: a {family} model without it"
            )
    if other := set(map(str, config.get("layer_types") or ())) - {"full_attention"}:
        raise ModelError(f"layer_types is {min(other)!r} somewhere; supported: 'full_attention'")


def _llama(config: Mapping[str, Any]) -> dict[str, Any]:
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    positions = config.get("max_position_embeddings", 2048)
    name, rope = _rope(config)
    theta = float(rope.get("rope_theta", config.get("rope_theta", 10_000.0)))
    return {
        "family": "llama",
        "n_layers": config["num_hidden_layers"],
        "hidden": config["hidden_size"],
        "n_heads": heads,
        "n_kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": head_dim,
        "intermediate": config["intermediate_size"],
        "vocab": config["vocab_size"],
        "max_positions": positions,
        "norm_eps": float(config.get("rms_norm_eps", 1e-6)),
        "rope_theta": theta,
        "rope_divisors": divisors(name, rope, theta, head_dim, positions),
        "activation": _activation(config, "hidden_act", "silu"),
        "tied": config.get("tie_word_embeddings", False),
    }


def _gpt2(config: Mapping[str, Any]) -> dict[str, Any]:
    hidden, heads = config["n_embd"], config["n_head"]
    return {
        "family": "gpt2",
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


def _rope(config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The scaling of rotary frequencies: in `rope_parameters` since transformers 5, before that in `rope_scaling`."""
    given = {name: config[name] for name in ("rope_scaling", "rope_parameters") if config.get(name)}
    if len(given) == 2 and given["rope_scaling"] != given["rope_parameters"]:
        raise ModelError("rope_scaling and rope_parameters differ; keep only the correct one")
    name = next(iter(given), "rope_parameters")
    return name, given.get(name, {})


def _activation(config: Mapping[str, Any], name: str, default: str) -> str:
    kind = config.get(name, default)
    if kind not in ACTIVATIONS:
        raise ModelError(f"{name} is {kind!r}; supported: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[kind]


def _token_ids(config: Mapping[str, Any]) -> set[int]:
    """`eos_token_id` is absent, a number or a list of numbers."""
    ids = config.get("eos_token_id")
    return {token for token in (ids if isinstance(ids, list) else [ids]) if isinstance(token, int)}
