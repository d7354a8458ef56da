"""A model in one GGUF file, quantised or not."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from torch import Tensor

from parties.errors import ModelError
from parties.models.chat import ChatTemplate
from parties.models.gguf_families import GGUF_FAMILIES, Facts, GgufFamily
from parties.models.gguf_file import GgufFile, read_header
from parties.models.gguf_tokenizer import read_chat, read_tokenizer
from parties.models.spec import ModelSpec

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
        spec, family = self.spec(), self._family

        def read(name: str) -> Tensor:
            tensor = self._file.read(name)
            turned = family.interleaved and (".attn_q." in name or ".attn_k." in name)
            return _half_split(tensor, spec.head_dim) if turned else tensor

        return family.layout.canonical(spec, read, self.path)

    def check(self) -> None:
        """Checks that the weights are complete and belong to this model, from the header.

        Raises:
            ModelError: A tensor is missing or of another shape.
        """
        shapes = {name: tensor.shape for name, tensor in self._file.tensors.items()}
        self._family.layout.check(self.spec(), shapes, self.path)

    @property
    def _family(self) -> GgufFamily:
        return GGUF_FAMILIES[self._file.facts["general.architecture"]]

    def tokenizer(self) -> tokenizers.Tokenizer:
        """The tokenizer in the metadata."""
        return read_tokenizer(self._file.facts, self.path)

    def chat(self) -> ChatTemplate | None:
        """The chat template in the metadata."""
        return read_chat(self._file.facts)


def _spec(file: GgufFile) -> ModelSpec:
    name = file.facts["general.architecture"]
    if name not in list(GGUF_FAMILIES):
        raise ModelError(f"general.architecture is {name!r}; supported: {', '.join(GGUF_FAMILIES)}")
    family, facts = GGUF_FAMILIES[name], Facts(file)
    _check_keys(facts, family)
    if not family.partly_rotated:
        _same(facts, "rope.dimension_count")
    _same(facts, "attention.value_length")
    if not facts.has("token_embd.weight"):
        raise ModelError("tensor token_embd.weight is missing; the file is not a complete model")
    ends = [f"tokenizer.ggml.{end}_token_id" for end in ("eos", "eot")]
    common: dict[str, Any] = {
        "family": family.family,
        "n_layers": facts["block_count"],
        "hidden": facts["embedding_length"],
        "n_heads": facts["attention.head_count"],
        "n_kv_heads": facts.get("attention.head_count_kv", facts["attention.head_count"]),
        "head_dim": facts.head_dim,
        "intermediate": facts["feed_forward_length"],
        "vocab": file.tensors["token_embd.weight"].shape[0],
        "max_positions": facts["context_length"],
        "rope_theta": float(facts.get("rope.freq_base", 10_000.0)),
        "tied": not facts.has("output.weight"),
        "eos_ids": tuple(sorted({file.facts[end] for end in ends if end in file.facts})),
    }
    spec = ModelSpec(**common, **family.read(facts))
    known = {family.layout.stored(parameter) for parameter in spec.shapes()} | family.tensors
    if unknown := sorted(file.tensors.keys() - known):
        raise ModelError(f"it has the tensor {unknown[0][:64]}, which the decoder does not support")
    return spec


def _check_keys(facts: Facts, family: GgufFamily) -> None:
    """Refuses every key that changes what the model computes and would otherwise be ignored.

    Raises:
        ModelError: There is such a key.
    """
    for name, allowed in _ONLY.items():
        value = facts.get(name, allowed[0])
        if name not in family.understood and value not in allowed:
            raise ModelError(f"{facts.key(name)} is {_brief(value)}; supported: {' or '.join(map(repr, allowed))}")
    prefix, known = facts.key(""), _UNDERSTOOD | family.understood | set(_ONLY)
    for key, value in facts.file.facts.items():
        if key.startswith(prefix) and key.removeprefix(prefix) not in known:
            raise ModelError(
                f"{key} is {_brief(value)}, which the decoder does not support; supported: models without it"
            )


def _brief(value: object) -> str:
    """A value for a message, shortened, since in a damaged file it may be an array of thousands."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _same(facts: Facts, name: str) -> None:
    width = facts.head_dim
    if facts.get(name, width) != width:
        raise ModelError(f"{facts.key(name)} is {facts[name]!r}; supported: {width}, the whole head")


def _half_split(tensor: Tensor, head_dim: int) -> Tensor:
    """Undoes GGUF's interleaving of the two halves of each head, which stores the rows i and i + d/2 adjacently."""
    if tensor.dim() == 0 or tensor.shape[0] % head_dim:
        return tensor  # does not match the metadata; the check of all shapes reports it
    pairs = tensor.reshape(-1, head_dim // 2, 2, *tensor.shape[1:])
    return pairs.transpose(1, 2).reshape(tensor.shape)
