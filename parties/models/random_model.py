"""Models of a given shape with seeded random weights, for runs in which only the shape matters.

`random:tiny-llama`, or a shape with changes: `random:llama?layers=2&hidden=64&heads=4&kv_heads=2&vocab=256&seed=1`.
"""

from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any
from urllib.parse import parse_qsl

import tokenizers
import torch
from torch import Tensor

from parties.errors import ModelError
from parties.models.byte_bpe import bytes_only
from parties.models.rope import read_rope
from parties.models.spec import ModelSpec

_TINY_LLAMA = ModelSpec(
    family="llama",
    n_layers=4,
    hidden=64,
    n_heads=4,
    n_kv_heads=2,
    head_dim=16,
    intermediate=128,
    vocab=256,
    max_positions=2048,
    norm_eps=1e-5,
    activation="silu",
    tied=True,
)
_GPT2 = ModelSpec(
    family="gpt2",
    n_layers=12,
    hidden=768,
    n_heads=12,
    n_kv_heads=12,
    head_dim=64,
    intermediate=3072,
    vocab=50_257,
    max_positions=1024,
    norm_eps=1e-5,
    activation="gelu_tanh",
    tied=True,
)
_LLAMA_7B = replace(
    _TINY_LLAMA,
    n_layers=32,
    hidden=4096,
    n_heads=32,
    n_kv_heads=32,
    head_dim=128,
    intermediate=11_008,
    vocab=32_000,
    max_positions=4096,
    tied=False,
)
_LLAMA_8B = replace(
    _LLAMA_7B,
    n_kv_heads=8,
    intermediate=14_336,
    vocab=128_256,
    max_positions=131_072,
    rope_theta=500_000.0,
)
_QWEN_7B = replace(
    _LLAMA_7B,
    family="qwen2",
    n_layers=28,
    hidden=3584,
    n_heads=28,
    n_kv_heads=4,
    intermediate=18_944,
    vocab=152_064,
    max_positions=131_072,
    norm_eps=1e-6,
    rope_theta=1e6,
    qkv_bias=True,
)
_GEMMA_2B = replace(
    _TINY_LLAMA,
    family="gemma2",
    n_layers=26,
    hidden=2304,
    n_heads=8,
    n_kv_heads=4,
    head_dim=256,
    intermediate=9216,
    vocab=256_000,
    max_positions=8192,
    norm_eps=1e-6,
    activation="gelu_tanh",
    embed_scale=48.0,
    windows=(4096, 0) * 13,
    score_cap=50.0,
    logit_cap=30.0,
)
_TINY = replace(_TINY_LLAMA, n_layers=2, hidden=32, head_dim=8, intermediate=64)
_TINY_GEMMA = replace(_TINY, family="gemma2", activation="gelu_tanh", embed_scale=32.0**0.5, windows=(8, 0))
SHAPES = {
    "llama": _TINY_LLAMA,
    "tiny-llama": _TINY_LLAMA,
    "tiny-gpt2": replace(
        _GPT2, n_layers=4, hidden=64, n_heads=4, n_kv_heads=4, head_dim=16, intermediate=256, vocab=256
    ),
    "tiny-mistral": replace(_TINY, family="mistral", windows=(8, 8)),
    "tiny-qwen2": replace(_TINY, family="qwen2", qkv_bias=True),
    "tiny-qwen3": replace(_TINY, family="qwen3"),
    "tiny-phi3": replace(_TINY, family="phi3", rope_dims=6, rope_scale=1.2),
    "tiny-smollm3": replace(_TINY, family="smollm3", unrotated=(1,)),
    "tiny-gemma2": replace(_TINY_GEMMA, score_cap=50.0, logit_cap=30.0),
    "tiny-gemma3_text": replace(_TINY_GEMMA, family="gemma3_text", local_rope_theta=1000.0),
    "tiny-gpt_neox": replace(
        _TINY, family="gpt_neox", n_kv_heads=4, activation="gelu", parallel=True, rope_dims=2, qkv_bias=True,
        o_bias=True, mlp_bias=True, tied=False,
    ),
    "smollm2-135m": replace(
        _TINY_LLAMA,
        n_layers=30,
        hidden=576,
        n_heads=9,
        n_kv_heads=3,
        head_dim=64,
        intermediate=1536,
        vocab=49_152,
        max_positions=8192,
        rope_theta=100_000.0,
    ),
    "gpt2": _GPT2,
    "llama-7b": _LLAMA_7B,
    "llama-2-7b": _LLAMA_7B,
    "longchat-7b": replace(_LLAMA_7B, max_positions=32_768),
    "llama-3.1-8b": _LLAMA_8B,
    "mistral-7b": replace(
        _LLAMA_8B, family="mistral", vocab=32_768, max_positions=32_768, rope_theta=1e6
    ),
    "qwen2.5-0.5b": replace(
        _QWEN_7B, n_layers=24, hidden=896, n_heads=14, n_kv_heads=2, head_dim=64, intermediate=4864, vocab=151_936,
        max_positions=32_768, tied=True,
    ),
    "qwen2.5-1.5b": replace(
        _QWEN_7B, hidden=1536, n_heads=12, n_kv_heads=2, intermediate=8960, vocab=151_936, tied=True
    ),
    "qwen2.5-7b": _QWEN_7B,
    "gemma-2-2b": _GEMMA_2B,
}  # fmt: skip
"""By name; the published models are LongChat-7B-v1.5-32k, Mistral-7B-v0.3, and the base models of Qwen2.5."""
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
SCALINGS = {
    "longchat-7b": {"rope_type": "linear", "factor": 8.0},
    "llama-3.1-8b": {"rope_type": "llama3", "factor": 8.0, **_LLAMA3},
}
"""Scaled contexts, as a configuration has them."""
_OPTIONS = {
    "layers": "n_layers",
    "hidden": "hidden",
    "heads": "n_heads",
    "kv_heads": "n_kv_heads",
    "head_dim": "head_dim",
    "intermediate": "intermediate",
    "vocab": "vocab",
    "positions": "max_positions",
}


@dataclass(frozen=True)
class RandomModel:
    """A model of random weights.

    Attributes:
        shape: Specification of the model.
        seed: Seed of the weights; equal seeds and shapes give equal weights.
        damping: Divides what each layer adds to the residual stream. Without it random weights amplify an error from
            layer to layer as no trained model does: one near tie in a ranking of a deep model changes its tokens. An
            embedding of its own is then of order 1, since damped layers leave the stream as small as it begins.
    """

    shape: ModelSpec
    seed: int = 0
    damping: int = 1

    def spec(self) -> ModelSpec:
        """The specification of the model."""
        return self.shape

    def weights(self) -> dict[str, Tensor]:
        """Canonical parameters, scaled so that activations are of order 1 and logits within a few units."""
        generator = torch.Generator().manual_seed(self.seed)
        return {name: self._fill(name, shape, generator) for name, shape in self.shape.shapes().items()}

    def check(self) -> None:
        """Does nothing, since generated weights are always complete."""

    def tokenizer(self) -> tokenizers.Tokenizer:
        """A tokenizer with one token per byte."""
        return bytes_only(self.shape.vocab)

    def chat(self) -> None:
        """None, since weights that were never trained have seen no chats."""

    def _fill(self, name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        noise: Tensor = torch.randn(shape, generator=generator)
        spec, (module, kind) = self.shape, ("." + name).split(".")[-2:]
        if kind == "bias":
            return noise * 0.1
        if module.endswith("norm"):
            return 1 + noise * 0.1
        if kind == "embed" and self.damping > 1 and not spec.tied:
            return noise
        if kind in ("embed", "positions") or module == "lm_head":
            return noise.mul_(2 / spec.hidden**0.5)
        noise /= shape[0] ** 0.5
        if module in ("o", "down"):  # 2 n_layers of these add up in the residual stream
            return noise.div_(self.damping * (2 * spec.n_layers) ** 0.5)
        if module == "q":  # spread of the scores: the first head attends to few tokens, the last one to all alike
            spread = torch.linspace(4, 0.5, spec.n_heads).repeat_interleave(spec.head_dim)
            return noise.mul_(spread)
        return noise


def parse_random(text: str) -> RandomModel:
    """`llama-7b` or `llama?layers=2&seed=1` -> a model.

    Head width follows from `hidden` and `heads` unless it is given.

    Raises:
        ModelError: A shape or option is unknown, or a value is invalid.
    """
    name, _, query = text.partition("?")
    if name not in SHAPES:
        raise ModelError(f"random model {name!r} is not known; choose from {', '.join(SHAPES)}")
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True)) if query else {}
    except ValueError as error:
        raise ModelError(f"random:{text}: {error}; write options as layers=2&hidden=64") from error
    changes: dict[str, Any] = {}
    seed = _whole(text, "seed", options.pop("seed", "0"))
    if not (damping := _whole(text, "damping", options.pop("damping", "1"))):
        raise ModelError(f"random:{text}: damping is 0; it must be at least 1")
    for option, value in options.items():
        if option in ("tied", "qkv_bias"):
            changes[option] = _truth(text, option, value)
        elif option in _OPTIONS:
            changes[_OPTIONS[option]] = _whole(text, option, value)
        else:
            known = ", ".join([*_OPTIONS, "tied", "qkv_bias", "seed", "damping"])
            raise ModelError(f"random:{text}: option {option} is not known; choose from {known}")
    spec = _changed(SHAPES[name], changes)
    if name in SCALINGS:
        scaling = read_rope(name, SCALINGS[name], spec.rope_theta, spec.head_dim, spec.max_positions)
        spec = replace(spec, **scaling)
    return RandomModel(spec, seed, damping)


def _changed(spec: ModelSpec, changes: dict[str, Any]) -> ModelSpec:
    heads, hidden = changes.get("n_heads", spec.n_heads), changes.get("hidden", spec.hidden)
    if {"n_heads", "hidden"} & changes.keys() and "head_dim" not in changes:
        if heads < 1 or hidden % heads:
            raise ModelError(f"hidden={hidden} is not a multiple of heads={heads}; change one of them or give head_dim")
        changes["head_dim"] = hidden // heads
    if spec.family == "gpt2":
        changes.setdefault("n_kv_heads", heads)
    if spec.embed_scale != 1:
        changes["embed_scale"] = float(hidden) ** 0.5
    layers = changes.get("n_layers", spec.n_layers)
    if spec.windows:
        changes["windows"] = tuple(islice(cycle(spec.windows), layers))
    changes["unrotated"] = tuple(layer for layer in spec.unrotated if layer < layers)
    return replace(spec, **changes)


def _whole(text: str, option: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise ModelError(f"random:{text}: {option} is {value!r}; it must be a whole number of at most 18 digits")
    return int(value)


def _truth(text: str, option: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise ModelError(f"random:{text}: {option} is {value!r}; it must be true or false")
    return value == "true"
