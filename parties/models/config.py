"""Reads `config.json` of a transformers checkpoint: the facts of a model, or why the decoder cannot run it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parties.errors import ModelError
from parties.models.spec import ModelSpec

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}

# Values other than these change what the model computes; a missing key means the first one.
_BOTH: dict[str, tuple[Any, ...]] = {"quantization_config": (None,)}
_ONLY: dict[str, dict[str, tuple[Any, ...]]] = {
    "llama": _BOTH
    | {
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "sliding_window": (None,),
        "num_local_experts": (None, 0, 1),
        "partial_rotary_factor": (None, 1.0),
    },
    "gpt2": _BOTH
    | {
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    },
}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ModelError: the file is missing, unreadable or no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {error}; fetch the model again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds a {type(content).__name__}, not a JSON object; fetch the model again")
    return content


def read_config(folder: Path) -> ModelSpec:
    """The facts of the model in a folder.

    Raises:
        ModelError: a field is missing or impossible, or asks for something else than the plain Llama or GPT-2 type.
    """
    path = folder / "config.json"
    config = read_json(path)
    family = config.get("model_type")
    if family not in list(_ONLY):
        raise ModelError(f"{path}: model_type is {family!r}; supported: {', '.join(_ONLY)}")
    for name, allowed in _ONLY[family].items():
        if config.get(name, allowed[0]) not in allowed:
            raise ModelError(f"{path}: {name} is {config[name]!r}; supported: {allowed[0]!r}")
    generation = folder / "generation_config.json"
    eos = _token_ids(config) | (_token_ids(read_json(generation)) if generation.exists() else set())
    try:
        facts = _llama(config) if family == "llama" else _gpt2(config)
        # A token beyond the vocabulary can never come up; small test models inherit such defaults.
        known = tuple(sorted(token for token in eos if token < facts["vocab"]))
        return ModelSpec(**facts, eos_ids=known)
    except KeyError as error:
        raise ModelError(f"{path}: field {error.args[0]} is missing; fetch the model again") from error
    except (TypeError, ValueError, ZeroDivisionError, AttributeError) as error:
        raise ModelError(f"{path}: a field has an impossible value: {error}; fetch the model again") from error
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def _llama(config: Mapping[str, Any]) -> dict[str, Any]:
    heads = config["num_attention_heads"]
    return {
        "family": "llama",
        "n_layers": config["num_hidden_layers"],
        "hidden": config["hidden_size"],
        "n_heads": heads,
        "n_kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or config["hidden_size"] // heads,
        "intermediate": config["intermediate_size"],
        "vocab": config["vocab_size"],
        "max_positions": config.get("max_position_embeddings", 2048),
        "norm_eps": float(config.get("rms_norm_eps", 1e-6)),
        "rope_theta": _rope_theta(config),
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


def _rope_theta(config: Mapping[str, Any]) -> float:
    """Base of the rotary frequencies: in `rope_parameters` since transformers 5, before that beside `rope_scaling`."""
    for name in ("rope_parameters", "rope_scaling"):
        rope = config.get(name) or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise ModelError(f"{name}.rope_type is {kind!r}; supported: 'default', without scaling")
    nested = (config.get("rope_parameters") or {}).get("rope_theta", 10_000.0)
    return float(config.get("rope_theta", nested))


def _activation(config: Mapping[str, Any], name: str, default: str) -> str:
    kind = config.get(name, default)
    if kind not in ACTIVATIONS:
        raise ModelError(f"{name} is {kind!r}; supported: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[kind]


def _token_ids(config: Mapping[str, Any]) -> set[int]:
    """`eos_token_id` is absent, a number or a list of numbers."""
    ids = config.get("eos_token_id")
    return {token for token in (ids if isinstance(ids, list) else [ids]) if isinstance(token, int)}
