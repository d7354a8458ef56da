"""The specification of a model: public hyperparameters, and the names and shapes of its parameters."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor

from parties.errors import ModelError

Shape = tuple[int, ...]

FAMILIES = ("llama", "gpt2")
ACTIVATIONS = ("silu", "gelu_tanh", "gelu")
_SIZES = ("n_layers", "hidden", "n_heads", "n_kv_heads", "head_dim", "intermediate", "vocab", "max_positions")


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The public specification of a decoder-only transformer.

    Attributes:
        family: `llama` (RMSNorm, rotary positions, grouped queries, gated MLP) or `gpt2` (layer norm, learned
            positions, plain MLP, biases everywhere).
        n_layers: Number of blocks.
        hidden: Width of the residual stream.
        n_heads: Query heads.
        n_kv_heads: Key and value heads; each serves `n_heads / n_kv_heads` query heads.
        head_dim: Width of a head.
        intermediate: Width of the MLP.
        vocab: Number of tokens.
        max_positions: Longest supported sequence, in tokens.
        norm_eps: Added to the mean square (variance, in `gpt2`) before the square root.
        activation: Activation of the MLP: `silu`, `gelu_tanh` or `gelu`.
        tied: Whether the output matrix is the transposed embedding.
        rope_theta: Base of the rotary frequencies; unused in `gpt2`.
        rope_divisors: Divisor of each rotary frequency, `head_dim / 2` numbers, in a model with a scaled context ("rope
            scaling"); empty if the frequencies are those of `rope_theta`.
        qkv_bias: Whether a `llama` model has biases on queries, keys and values; `gpt2` always does.
        eos_ids: Tokens that end a text.

    Raises:
        ModelError: A value is invalid; the message names it.
    """

    family: Literal["llama", "gpt2"]
    n_layers: int
    hidden: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    max_positions: int
    norm_eps: float
    activation: Literal["silu", "gelu_tanh", "gelu"]
    tied: bool
    rope_theta: float = 10_000.0
    qkv_bias: bool = False
    eos_ids: tuple[int, ...] = ()
    rope_divisors: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _check(self.family in FAMILIES, "family", self.family, f"one of {', '.join(FAMILIES)}")
        _check(self.activation in ACTIVATIONS, "activation", self.activation, f"one of {', '.join(ACTIVATIONS)}")
        for name in _SIZES:
            value, most = getattr(self, name), 1000 if name == "n_layers" else 2**31
            _check(type(value) is int and 0 < value <= most, name, value, f"a whole number from 1 to {most}")
        for name in ("norm_eps", "rope_theta"):
            value = getattr(self, name)
            _check(type(value) is float and 0 < value < math.inf, name, value, "a positive number")
        for name in ("tied", "qkv_bias"):
            _check(type(getattr(self, name)) is bool, name, getattr(self, name), "true or false")
        _check(self.n_heads % self.n_kv_heads == 0, "n_kv_heads", self.n_kv_heads, f"a divisor of {self.n_heads} heads")
        _check(self.head_dim % 2 == 0 or self.family == "gpt2", "head_dim", self.head_dim, "even, for rotary positions")
        same = self.family == "llama" or self.n_kv_heads == self.n_heads
        _check(same, "n_kv_heads", self.n_kv_heads, f"{self.n_heads}, the number of heads, in a gpt2 model")
        self._check_divisors()
        known = all(type(token) is int and 0 <= token < self.vocab for token in self.eos_ids)
        _check(known, "eos_ids", self.eos_ids, f"tokens from 0 to {self.vocab - 1}")

    def shapes(self) -> dict[str, Shape]:
        """Name and shape of every canonical parameter; matrices are [in, out], so that y = x @ W + b."""
        shapes: dict[str, Shape] = {"embed": (self.vocab, self.hidden)}
        if self.family == "gpt2":
            shapes["positions"] = (self.max_positions, self.hidden)
        for layer in range(self.n_layers):
            shapes |= {f"layers.{layer}.{name}": shape for name, shape in self._layer_shapes().items()}
        shapes |= self._norm_shapes("final_norm")
        if not self.tied:
            shapes["lm_head.weight"] = (self.hidden, self.vocab)
        return shapes

    @property
    def parameters(self) -> int:
        """Number of parameters of the model."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    @property
    def cached_numbers(self) -> int:
        """Numbers that one layer caches per token: its key and its value."""
        return 2 * self.n_kv_heads * self.head_dim

    def rope_frequencies(self) -> Tensor:
        """Angles between adjacent positions, one per pair of elements of a head, [head_dim / 2], float64."""
        half = self.head_dim // 2
        plain = self.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)
        return plain / torch.tensor(self.rope_divisors, dtype=torch.float64) if self.rope_divisors else plain

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values; empty divisors are omitted, so that earlier heads match their model."""
        fields = dataclasses.asdict(self) | {"eos_ids": list(self.eos_ids)}
        divisors = fields.pop("rope_divisors")
        return fields | ({"rope_divisors": list(divisors)} if divisors else {})

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            ModelError: A field is missing, unknown or invalid.
        """
        try:
            lists = {name: tuple(fields.get(name, ())) for name in ("eos_ids", "rope_divisors")}
            return cls(**{**fields, **lists})
        except (AttributeError, TypeError) as error:
            raise ModelError(f"this is not the specification of a model: {error}") from error

    def _check_divisors(self) -> None:
        divisors, half = self.rope_divisors, self.head_dim // 2
        fits = not divisors or (self.family == "llama" and len(divisors) == half)
        sound = fits and all(type(number) is float and 0 < number < math.inf for number in divisors)
        _check(sound, "rope_divisors", divisors, f"empty, or in a llama model {half} positive numbers")

    def _layer_shapes(self) -> dict[str, Shape]:
        """Names and shapes of the parameters of one block, in the order of their use."""
        queries, keys = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        attention = {"q": (self.hidden, queries), "k": (self.hidden, keys), "v": (self.hidden, keys)}
        first = {"gate": (self.hidden, self.intermediate)} if self.family == "llama" else {}
        mlp = first | {"up": (self.hidden, self.intermediate), "down": (self.intermediate, self.hidden)}
        shapes = self._norm_shapes("attn_norm")
        for name, shape in (attention | {"o": (queries, self.hidden)}).items():
            shapes |= self._matrix_shapes(name, shape, bias=self.qkv_bias and name in attention)
        shapes |= self._norm_shapes("mlp_norm")
        for name, shape in mlp.items():
            shapes |= self._matrix_shapes(name, shape)
        return shapes

    def _matrix_shapes(self, name: str, shape: tuple[int, int], *, bias: bool = False) -> dict[str, Shape]:
        bias = bias or self.family == "gpt2"
        return {f"{name}.weight": shape} | ({f"{name}.bias": shape[1:]} if bias else {})

    def _norm_shapes(self, name: str) -> dict[str, Shape]:
        kinds = ("weight", "bias") if self.family == "gpt2" else ("weight",)
        return {f"{name}.{kind}": (self.hidden,) for kind in kinds}


def _check(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ModelError(f"model field {name} is {value!r}; it must be {allowed}")
