"""A model in one GGUF file, quantised or not."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from torch import Tensor

from parties.errors import ModelError
from parties.models.chat import ChatTemplate
from parties.models.gguf_file import GgufFile, read_header
from parties.models.gguf_tokenizer import read_chat, read_tokenizer
from parties.models.layout import Layout
from parties.models.rope import linear
from parties.models.spec import ModelSpec

_SHARED = {
    "embed": "token_embd",
    "attn_norm": "attn_norm",
    "o": "attn_output",
    "mlp_norm": "ffn_norm",
    "up": "ffn_up",
    "down": "ffn_down",
    "final_norm": "output_norm",
    "lm_head": "output",
}
_SPLIT = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "gate": "ffn_gate"}
_JOINED = {"q": "attn_qkv", "k": "attn_qkv", "v": "attn_qkv", "positions": "position_embd"}
LAYOUTS = {
    "llama": Layout(block="blk.{}", modules=_SHARED | _SPLIT, transposed=True),
    "gpt2": Layout(block="blk.{}", modules=_SHARED | _JOINED, transposed=True),
}

# Other values change what the model computes; the first one is the default.
_ONLY: dict[str, tuple[Any, ...]] = {
    "rope.scaling.type": ("linear", "none"),
    "rope.scaling.attn_factor": (1.0,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "attention.sliding_window": (0,),
    "attention.causal": (True,),
    "attention.max_alibi_bias": (0.0,),
    "attention.clamp_kqv": (0.0,),
    "use_parallel_residual": (False,),
}
# Read below, or without effect on what the model computes. Every other key of the architecture is refused.
_UNDERSTOOD = {
    "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon", "attention.value_length", "block_count", "context_length", "embedding_length",
    "feed_forward_length", "rope.dimension_count", "rope.freq_base", "rope.scale_linear", "rope.scaling.factor",
    "rope.scaling.finetuned", "rope.scaling.original_context_length", "tensor_data_layout", "vocab_size",
}  # fmt: skip
_FREQUENCIES = "rope_freqs.weight"
"""Name of the tensor with one divisor per rotary frequency, which scales Llama 3.1."""


@dataclass(frozen=True)
class GgufModel:
    """A model in a GGUF file.

    Attributes:
        path: Path of the file.
    """

    path: Path

    @cached_property
    def _file(self) -> GgufFile:
        return read_header(self.path)

    def spec(self) -> ModelSpec:
        """The specification of the model, from the header alone."""
        file = self._file
        try:
            return _spec(file)
        except KeyError as error:
            raise ModelError(f"{self.path}: {error.args[0]} is missing; the file is not a complete model") from error
        except (TypeError, ValueError, IndexError, ArithmeticError) as error:
            raise ModelError(f"{self.path}: invalid metadata: {error}; fetch the file again") from error
        except ModelError as error:
            raise ModelError(f"{self.path}: {error}") from error

    def weights(self) -> dict[str, Tensor]:
        """Canonical parameters, dequantised."""
        spec = self.spec()

        def read(name: str) -> Tensor:
            tensor = self._file.read(name)
            turned = spec.family == "llama" and (".attn_q." in name or ".attn_k." in name)
            return _half_split(tensor, spec.head_dim) if turned else tensor

        return LAYOUTS[spec.family].canonical(spec, read, self.path)

    def check(self) -> None:
        """Checks that the weights are complete and belong to this model, from the header.

        Raises:
            ModelError: A tensor is missing or of another shape.
        """
        spec = self.spec()
        LAYOUTS[spec.family].check(spec, {name: t.shape for name, t in self._file.tensors.items()}, self.path)

    def tokenizer(self) -> tokenizers.Tokenizer:
        """The tokenizer in the metadata."""
        return read_tokenizer(self._file.facts, self.path)

    def chat(self) -> ChatTemplate | None:
        """The chat template in the metadata."""
        return read_chat(self._file.facts)


def _spec(file: GgufFile) -> ModelSpec:
    facts, family = file.facts, file.facts["general.architecture"]
    if family not in list(LAYOUTS):
        raise ModelError(f"general.architecture is {family!r}; supported: {', '.join(LAYOUTS)}")
    _check_keys(facts, family)

    def fact(name: str) -> Any:
        return facts[f"{family}.{name}"]

    hidden, heads = fact("embedding_length"), fact("attention.head_count")
    head_dim = facts.get(f"{family}.attention.key_length", hidden // heads)
    _same(facts, f"{family}.rope.dimension_count", head_dim)
    _same(facts, f"{family}.attention.value_length", head_dim)
    if "token_embd.weight" not in file.tensors:
        raise ModelError("tensor token_embd.weight is missing; the file is not a complete model")
    kind = "attention.layer_norm_rms_epsilon" if family == "llama" else "attention.layer_norm_epsilon"
    ends = [f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot")]
    spec = ModelSpec(
        family=family,
        n_layers=fact("block_count"),
        hidden=hidden,
        n_heads=heads,
        n_kv_heads=facts.get(f"{family}.attention.head_count_kv", heads),
        head_dim=head_dim,
        intermediate=fact("feed_forward_length"),
        vocab=file.tensors["token_embd.weight"].shape[0],
        max_positions=fact("context_length"),
        norm_eps=float(fact(kind)),
        rope_theta=float(facts.get(f"{family}.rope.freq_base", 10_000.0)),
        activation="silu" if family == "llama" else "gelu_tanh",
        tied="output.weight" not in file.tensors,
        qkv_bias=family == "llama" and "blk.0.attn_q.bias" in file.tensors,
        eos_ids=tuple(sorted({facts[name] for name in ends if name in facts})),
        rope_divisors=_divisors(file, head_dim) if family == "llama" else (),
    )
    layout = LAYOUTS[family]
    known = {layout.stored(name) for name in spec.shapes()} | ({_FREQUENCIES} if family == "llama" else set())
    if unknown := sorted(file.tensors.keys() - known):
        raise ModelError(f"it has the tensor {unknown[0][:64]}, which the decoder does not support")
    return spec


def _check_keys(facts: Mapping[str, Any], family: str) -> None:
    """Refuses every key that changes what the model computes and would otherwise be ignored.

    Raises:
        ModelError: There is such a key.
    """
    for name, allowed in _ONLY.items():
        value = facts.get(f"{family}.{name}", allowed[0])
        if value not in allowed:
            raise ModelError(f"{family}.{name} is {_brief(value)}; supported: {' or '.join(map(repr, allowed))}")
    prefix = f"{family}."
    for key, value in facts.items():
        name = key.removeprefix(prefix)
        if key.startswith(prefix) and name not in _ONLY and name not in _UNDERSTOOD:
            raise ModelError(
                f"{key} is {_brief(value)}, which the decoder does not support; supported: models without it"
            )


def _divisors(file: GgufFile, head_dim: Any) -> tuple[float, ...]:
    """The divisor of each rotary frequency, as in llama.cpp: a factor without a type scales linearly."""
    facts = file.facts
    factor = facts.get("llama.rope.scaling.factor", facts.get("llama.rope.scale_linear", 1.0))
    if factor == 0 or facts.get("llama.rope.scaling.type") == "none":
        factor = 1.0
    uniform = linear("llama.rope.scaling", factor, head_dim)
    if _FREQUENCIES not in file.tensors:
        return uniform
    return tuple(factor * float(divisor) for divisor in file.read(_FREQUENCIES).flatten())


def _brief(value: object) -> str:
    """A value for a message, shortened, since in a damaged file it may be an array of thousands."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _same(facts: Mapping[str, Any], name: str, head_dim: int) -> None:
    if facts.get(name, head_dim) != head_dim:
        raise ModelError(f"{name} is {facts[name]!r}; supported: {head_dim}, the whole head")


def _half_split(tensor: Tensor, head_dim: int) -> Tensor:
    """Undoes GGUF's interleaving of the two halves of each head, which stores the rows i and i + d/2 adjacently."""
    if tensor.dim() == 0 or tensor.shape[0] % head_dim:
        return tensor  # does not match the metadata; the check of all shapes reports it
    pairs = tensor.reshape(-1, head_dim // 2, 2, *tensor.shape[1:])
    return pairs.transpose(1, 2).reshape(tensor.shape)
