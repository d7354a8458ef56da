"""The specification of a model: public hyperparameters, and the names and shapes of its parameters."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor

from parties.errors import ModelError
from parties.models.architecture import ARCHITECTURES, Architecture
from parties.models.rope import Rope

Shape = tuple[int, ...]

FAMILIES = tuple(ARCHITECTURES)
ACTIVATIONS = ("silu", "gelu_tanh", "gelu")
_SIZES = ("n_layers", "hidden", "n_heads", "n_kv_heads", "head_dim", "intermediate", "vocab", "max_positions")
_POSITIVE = ("norm_eps", "rope_theta", "rope_scale", "embed_scale")
_FROM_ZERO = ("rope_growth", "local_rope_theta", "query_width", "score_cap", "logit_cap")
_TRUTHS = ("tied", "qkv_bias", "o_bias", "mlp_bias", "parallel")
_LISTS = ("eos_ids", "rope_divisors", "rope_long_divisors", "windows", "unrotated")
_ALWAYS = ("rope_theta", "qkv_bias", "eos_ids")
"""Fields with a default that specifications hold since the first version; later ones are left out at their default."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The public specification of a decoder-only transformer.

    Attributes:
        family: One of `FAMILIES`; what all models of it share is its `architecture`.
        n_layers: Number of blocks.
        hidden: Width of the residual stream.
        n_heads: Query heads.
        n_kv_heads: Key and value heads; each serves `n_heads / n_kv_heads` query heads.
        head_dim: Width of a head.
        intermediate: Width of the MLP.
        vocab: Number of tokens.
        max_positions: Longest supported sequence, in tokens.
        norm_eps: Added to the mean square (variance, with layer norms) before the square root.
        activation: Activation of the MLP: `silu`, `gelu_tanh` or `gelu`.
        tied: Whether the output matrix is the transposed embedding.
        rope_theta: Base of the rotary frequencies; unused with learned positions.
        qkv_bias: Whether queries, keys and values have biases.
        eos_ids: Tokens that end a text.
        rope_divisors: Divisor of each rotary frequency, in a model with a scaled context ("rope scaling"); empty if the
            frequencies are those of `rope_theta`.
        rope_dims: Leading elements of a head that are rotated; 0: all.
        rope_scale: Factor of cosines and sines.
        rope_original: Tokens up to which `rope_divisors` hold; with more, `rope_long_divisors` or `rope_growth` apply.
        rope_long_divisors: Divisors for sequences of more than `rope_original` tokens; empty: the same.
        rope_growth: Factor of dynamic scaling: the base grows with sequences of more than `rope_original` tokens.
        local_rope_theta: Unscaled base of the layers with a window; 0: the same frequencies as the other layers.
        windows: For each layer the number of latest tokens that a token attends to, itself included; 0: all. Empty: all
            tokens in every layer.
        unrotated: Layers without positions.
        o_bias: Whether the output projection of attention has a bias.
        mlp_bias: Whether the matrices of the MLP have biases.
        parallel: Whether attention and MLP both read the input of the layer, rather than the MLP what follows.
        query_width: Scores are divided by its square root; 0: `head_dim`.
        embed_scale: Factor of the embedding as the first layer reads it.
        score_cap: Cap c of attention scores, c tanh(score / c); 0: none.
        logit_cap: Cap of logits; 0: none. It does not change which logit is largest, so no engine computes it.

    Raises:
        ModelError: A value is invalid; the message names it.
    """

    family: str
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
    rope_dims: int = 0
    rope_scale: float = 1.0
    rope_original: int = 0
    rope_long_divisors: tuple[float, ...] = ()
    rope_growth: float = 0.0
    local_rope_theta: float = 0.0
    windows: tuple[int, ...] = ()
    unrotated: tuple[int, ...] = ()
    o_bias: bool = False
    mlp_bias: bool = False
    parallel: bool = False
    query_width: float = 0.0
    embed_scale: float = 1.0
    score_cap: float = 0.0
    logit_cap: float = 0.0

    def __post_init__(self) -> None:
        _check(self.family in FAMILIES, "family", self.family, f"one of {', '.join(FAMILIES)}")
        _check(self.activation in ACTIVATIONS, "activation", self.activation, f"one of {', '.join(ACTIVATIONS)}")
        for name in _SIZES:
            value, most = getattr(self, name), 1000 if name == "n_layers" else 2**31
            _check(type(value) is int and 0 < value <= most, name, value, f"a whole number from 1 to {most}")
        for name in _POSITIVE:
            value = getattr(self, name)
            _check(type(value) is float and 0 < value < math.inf, name, value, "a positive number")
        for name in _FROM_ZERO:
            value = getattr(self, name)
            _check(type(value) is float and 0 <= value < math.inf, name, value, "a number from 0")
        for name in _TRUTHS:
            _check(type(getattr(self, name)) is bool, name, getattr(self, name), "true or false")
        _check(self.n_heads % self.n_kv_heads == 0, "n_kv_heads", self.n_kv_heads, f"a divisor of {self.n_heads} heads")
        same = self.family != "gpt2" or self.n_kv_heads == self.n_heads
        _check(same, "n_kv_heads", self.n_kv_heads, f"{self.n_heads}, the number of heads, in a gpt2 model")
        self._check_rope()
        self._check_layers()
        known = all(type(token) is int and 0 <= token < self.vocab for token in self.eos_ids)
        _check(known, "eos_ids", self.eos_ids, f"tokens from 0 to {self.vocab - 1}")

    @property
    def architecture(self) -> Architecture:
        """The facts that all models of the family share."""
        return ARCHITECTURES[self.family]

    def shapes(self) -> dict[str, Shape]:
        """Name and shape of every canonical parameter; matrices are [in, out], so that y = x @ W + b."""
        shapes: dict[str, Shape] = {"embed": (self.vocab, self.hidden)}
        if self.architecture.learned_positions:
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

    @property
    def score_factor(self) -> float:
        """Factor of the scores q . k, usually 1 / sqrt(head_dim)."""
        return float((self.query_width or self.head_dim) ** -0.5)

    def rope(self, layer: int) -> Rope | None:
        """The rotary positions of a layer; None if it has none."""
        if self.architecture.learned_positions or layer in self.unrotated:
            return None
        dims = self.rope_dims or self.head_dim
        if self.local_rope_theta and self.window(layer):
            return Rope(self.local_rope_theta, dims)
        return Rope(
            self.rope_theta,
            dims,
            self.rope_divisors,
            self.rope_scale,
            self.rope_original,
            self.rope_long_divisors,
            self.rope_growth,
        )

    def window(self, layer: int) -> int:
        """Latest tokens that a token of a layer attends to; 0: all."""
        return self.windows[layer] if self.windows else 0

    def capped(self, logits: Tensor) -> Tensor:
        """The logits of the model from those that an engine computes, which lack the model's cap."""
        return self.logit_cap * torch.tanh(logits / self.logit_cap) if self.logit_cap else logits

    def has_bias(self, module: str) -> bool:
        """Whether a matrix of a layer has a bias, by its canonical name: `q`, `k`, `v`, `o`, `gate`, `up`, `down`."""
        own = self.qkv_bias if module in ("q", "k", "v") else self.o_bias if module == "o" else self.mlp_bias
        return own or self.architecture.biased

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values, so that models of earlier versions keep theirs."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        given = {name: value for name, value in fields.items() if name in _ALWAYS or value != _DEFAULTS[name]}
        return given | {name: list(given[name]) for name in _LISTS if name in given}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            ModelError: A field is missing, unknown or invalid.
        """
        try:
            return cls(**{**fields, **{name: tuple(fields.get(name, ())) for name in _LISTS}})
        except (AttributeError, TypeError) as error:
            raise ModelError(f"this is not the specification of a model: {error}") from error

    def _check_rope(self) -> None:
        rotary = not self.architecture.learned_positions
        even = self.head_dim % 2 == 0 or not rotary
        _check(even, "head_dim", self.head_dim, "even, for rotary positions")
        partial, most = self.rope_dims, self.head_dim
        whole = type(partial) is int and partial % 2 == 0 and 0 <= partial <= most
        _check(whole, "rope_dims", partial, f"an even number from 0 to {most}")
        original = self.rope_original
        _check(type(original) is int and 0 <= original <= 2**31, "rope_original", original, f"from 0 to {2**31}")
        half = (partial or most) // 2
        for name in ("rope_divisors", "rope_long_divisors"):
            divisors = getattr(self, name)
            fits = not divisors or (rotary and len(divisors) == half)
            sound = fits and all(type(number) is float and 0 < number < math.inf for number in divisors)
            _check(sound, name, divisors, f"empty, or with rotary positions {half} positive numbers")
        longer = bool(self.rope_long_divisors or self.rope_growth)
        _check(longer == bool(original), "rope_original", original, "positive if frequencies depend on the length")
        _check(not self.rope_growth or half > 1, "rope_growth", self.rope_growth, "0 where two elements are rotated")

    def _check_layers(self) -> None:
        windows, n = self.windows, self.n_layers
        sound = all(type(window) is int and 0 <= window <= 2**31 for window in windows) and len(windows) in (0, n)
        _check(sound, "windows", windows, f"empty, or {n} whole numbers from 0")
        known = all(type(layer) is int and 0 <= layer < n for layer in self.unrotated)
        _check(known, "unrotated", self.unrotated, f"layers from 0 to {n - 1}")

    def _layer_shapes(self) -> dict[str, Shape]:
        """Names and shapes of the parameters of one block, in the order of their use."""
        hidden, inner, kind = self.hidden, self.intermediate, self.architecture
        queries, keys = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        shapes = self._norm_shapes("attn_norm")
        for name, shape in {"q": (hidden, queries), "k": (hidden, keys), "v": (hidden, keys)}.items():
            shapes |= self._matrix_shapes(name, shape)
        if kind.query_key_norm:
            shapes |= {"q_norm.weight": (self.head_dim,), "k_norm.weight": (self.head_dim,)}
        shapes |= self._matrix_shapes("o", (queries, hidden))
        if kind.post_norms:
            shapes |= self._norm_shapes("attn_post_norm")
        shapes |= self._norm_shapes("mlp_norm")
        first = {"gate": (hidden, inner)} if kind.gated else {}
        for name, shape in (first | {"up": (hidden, inner), "down": (inner, hidden)}).items():
            shapes |= self._matrix_shapes(name, shape)
        return shapes | (self._norm_shapes("mlp_post_norm") if kind.post_norms else {})

    def _matrix_shapes(self, name: str, shape: tuple[int, int]) -> dict[str, Shape]:
        return {f"{name}.weight": shape} | ({f"{name}.bias": shape[1:]} if self.has_bias(name) else {})

    def _norm_shapes(self, name: str) -> dict[str, Shape]:
        kinds = ("weight", "bias") if self.architecture.norm == "layer" else ("weight",)
        return {f"{name}.{kind}": (self.hidden,) for kind in kinds}


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(ModelSpec)}


def _check(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ModelError(f"model field {name} is {value!r}; it must be {allowed}")
