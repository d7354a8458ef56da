"""Models of a given shape with seeded random weights, for runs in which only the shape matters.

`random:tiny-llama`, or a shape with changes: `random:llama?layers=2&hidden=64&heads=4&kv_heads=2&vocab=256&seed=1`.
"""

from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl

import tokenizers
import torch
from torch import Tensor

from parties.errors import ModelError
from parties.models.byte_bpe import bytes_only
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
SHAPES = {
    "llama": _TINY_LLAMA,
    "tiny-llama": _TINY_LLAMA,
    "tiny-gpt2": replace(
        _GPT2, n_layers=4, hidden=64, n_heads=4, n_kv_heads=4, head_dim=16, intermediate=256, vocab=256
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
    "llama-7b": replace(
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
    ),
}
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
    """

    shape: ModelSpec
    seed: int = 0

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
        if kind in ("embed", "positions") or module == "lm_head":
            return noise.mul(2 / spec.hidden**0.5)
        noise /= shape[0] ** 0.5
        if module in ("o", "down"):  # 2 n_layers of these add up in the residual stream
            return noise.div((2 * spec.n_layers) ** 0.5)
        if module == "q":  # spread of the scores: the first head attends to few tokens, the last one to all alike
            spread = torch.linspace(4, 0.5, spec.n_heads).repeat_interleave(spec.head_dim)
            return noise * spread
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
    for option, value in options.items():
        if option in ("tied", "qkv_bias"):
            changes[option] = _truth(text, option, value)
        elif option in _OPTIONS:
            changes[_OPTIONS[option]] = _whole(text, option, value)
        else:
            known = ", ".join([*_OPTIONS, "tied", "qkv_bias", "seed"])
            raise ModelError(f"random:{text}: option {option} is not known; choose from {known}")
    return RandomModel(_changed(SHAPES[name], changes), seed)


def _changed(spec: ModelSpec, changes: dict[str, Any]) -> ModelSpec:
    heads, hidden = changes.get("n_heads", spec.n_heads), changes.get("hidden", spec.hidden)
    if {"n_heads", "hidden"} & changes.keys() and "head_dim" not in changes:
        if heads < 1 or hidden % heads:
            raise ModelError(f"hidden={hidden} is not a multiple of heads={heads}; change one of them or give head_dim")
        changes["head_dim"] = hidden // heads
    if spec.family == "gpt2":
        changes.setdefault("n_kv_heads", heads)
    return replace(spec, **changes)


def _whole(text: str, option: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise ModelError(f"random:{text}: {option} is {value!r}; it must be a whole number of at most 18 digits")
    return int(value)


def _truth(text: str, option: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise ModelError(f"random:{text}: {option} is {value!r}; it must be true or false")
    return value == "true"
