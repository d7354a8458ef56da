"""Tiny models with random weights, saved as transformers and llama.cpp save them."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gguf
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from parties.models.byte_bpe import bytes_only
from parties.models.spec import ModelSpec

TOKENS = [3, 17, 95, 4, 4, 60, 31, 2, 88, 41, 7, 0]


def tiny_llama(*, tied: bool) -> PreTrainedModel:
    """Grouped queries, a head width that does not follow from the others, and scales far from their initial ones."""
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=10,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
        tie_word_embeddings=tied,
        eos_token_id=[2, 5],
    )
    return stirred(LlamaForCausalLM(config))


def tiny_gpt2(activation: str = "gelu_new") -> PreTrainedModel:
    config = GPT2Config(
        vocab_size=96, n_embd=40, n_layer=3, n_head=4, n_positions=64, n_inner=72, activation_function=activation
    )
    return stirred(GPT2LMHeadModel(config))


def stirred(model: PreTrainedModel) -> PreTrainedModel:
    """Perturbs every parameter, since zeros and ones would hide a mistake in biases and norms."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def save(model: PreTrainedModel, folder: Path, **options: str) -> Path:
    model.save_pretrained(folder, **options)
    bytes_only(model.config.vocab_size).save(str(folder / "tokenizer.json"))
    return folder


def logits(model: PreTrainedModel, tokens: list[int]) -> Tensor:
    """[n, vocab], float64."""
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].double()


def write_gguf(
    path: Path,
    spec: ModelSpec,
    weights: dict[str, Tensor],
    extra: Mapping[str, Tensor] = MappingProxyType({}),
    **facts: Any,
) -> Path:
    """A GGUF file, unquantised; `facts` are added, with `__` for a dot (`rope__scaling__type="linear"`).

    Args:
        extra: Further tensors, as they are stored.
    """
    writer = gguf.GGUFWriter(path, spec.family)
    writer.add_block_count(spec.n_layers)
    writer.add_context_length(spec.max_positions)
    writer.add_embedding_length(spec.hidden)
    writer.add_feed_forward_length(spec.intermediate)
    writer.add_head_count(spec.n_heads)
    writer.add_eos_token_id(2)
    if spec.family == "llama":
        writer.add_head_count_kv(spec.n_kv_heads)
        writer.add_key_length(spec.head_dim)
        writer.add_layer_norm_rms_eps(spec.norm_eps)
        writer.add_rope_freq_base(spec.rope_theta)
    else:
        writer.add_layer_norm_eps(spec.norm_eps)
    add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    for name, value in facts.items():
        add[type(value)](f"{spec.family}.{name.replace('__', '.')}", value)
    if spec.rope_divisors:
        writer.add_tensor("rope_freqs.weight", torch.tensor(spec.rope_divisors).numpy())
    for name, tensor in (_gguf_tensors(spec, weights) | dict(extra)).items():
        writer.add_tensor(name, tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_tensors(spec: ModelSpec, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    names = {"embed": "token_embd", "positions": "position_embd", "final_norm": "output_norm", "lm_head": "output"}
    inside = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output", "mlp_norm": "ffn_norm"}
    inside |= {"attn_norm": "attn_norm", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}
    stored = {}
    for name, tensor in weights.items():
        if name in ("embed", "positions"):
            stored[f"{names[name]}.weight"] = tensor
            continue
        *place, module, kind = name.split(".")
        block = f"blk.{place[1]}." if place else ""
        if spec.family == "llama" and module in ("q", "k"):
            tensor = _interleaved(tensor, spec.head_dim)
        stored[f"{block}{(inside if place else names)[module]}.{kind}"] = tensor.T if tensor.dim() == 2 else tensor
    if spec.family == "gpt2":
        for layer in range(spec.n_layers):
            for kind in ("weight", "bias"):
                parts = [stored.pop(f"blk.{layer}.attn_{part}.{kind}") for part in "qkv"]
                stored[f"blk.{layer}.attn_qkv.{kind}"] = torch.cat(parts, dim=0)
    return stored


def _interleaved(tensor: Tensor, head_dim: int) -> Tensor:
    """Columns of each head in llama.cpp's order: 0, d/2, 1, d/2 + 1, ..."""
    half = head_dim // 2
    starts = range(0, tensor.shape[1], head_dim)
    order = [start + i + part * half for start in starts for i in range(half) for part in (0, 1)]
    return tensor[:, order]
