"""Converts a model of transformers to GGUF as llama.cpp does, with the tensor names of the package `gguf`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import torch
from torch import Tensor
from transformers import PreTrainedModel

ARCHITECTURES = {"gemma3_text": "gemma3", "gpt_neox": "gptneox"}
"""Name in GGUF of each `model_type` that has another one there."""


def convert(model: PreTrainedModel, path: Path, **facts: Any) -> str:
    """Writes a model, unquantised; `facts` are added, with `__` for a dot. Returns the path."""
    config = model.config
    name = ARCHITECTURES.get(config.model_type, config.model_type)
    writer = gguf.GGUFWriter(path, name)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_eos_token_id(2)
    if config.model_type == "gpt_neox":
        writer.add_layer_norm_eps(config.layer_norm_eps)
        writer.add_parallel_residual(config.use_parallel_residual)
    else:
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if width := getattr(config, "head_dim", None):
        writer.add_key_length(width)
        writer.add_value_length(width)
    add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    for key, value in facts.items():
        if not isinstance(value, Tensor):
            add[type(value)](f"{name}.{key.replace('__', '.')}", value)
    for key, tensor in (_tensors(model, name) | _given(facts)).items():
        writer.add_tensor(key, tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


def _given(facts: dict[str, Any]) -> dict[str, Tensor]:
    return {f"{name}.weight": value for name, value in facts.items() if isinstance(value, Tensor)}


def _tensors(model: PreTrainedModel, name: str) -> dict[str, Tensor]:
    code = next(code for code, known in gguf.MODEL_ARCH_NAMES.items() if known == name)
    names = gguf.get_tensor_name_map(code, model.config.num_hidden_layers)
    return {
        names.get_name(key, try_suffixes=(".weight", ".bias")): tensor.detach()
        for key, tensor in _converted(model, name)
    }


def _converted(model: PreTrainedModel, name: str) -> Iterator[tuple[str, Tensor]]:
    """The parameters as the converter stores them: gains of Gemma as they are used, q, k and v one after the other."""
    config = model.config
    for key, tensor in model.state_dict().items():
        if key in ("lm_head.weight", "embed_out.weight") and config.tie_word_embeddings:
            continue
        if name.startswith("gemma") and key.endswith("norm.weight"):
            yield key, tensor + 1
        elif ".query_key_value." in key:
            by_head = tensor.reshape(config.num_attention_heads, 3, -1, *tensor.shape[1:])
            yield key, torch.cat([by_head[:, part].flatten(0, 1) for part in range(3)])
        else:
            yield key, tensor
