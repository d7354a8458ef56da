"""Folds the parameters of a model into the few matrices that a private decoder multiplies by.

The owner of the weights does this before anything is shared. The gain and bias of a norm go into the matrices that
follow it, the 1/sqrt(head_dim) of attention into the query projection, the scale of the embedding into the embedding,
and matrices with the same input are concatenated, so that they cost one product instead of several. Where no matrix
follows a norm, its gain remains: of queries and keys before they are rotated, and of a norm before a residual.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from parties.models.spec import ModelSpec

Weights = Mapping[str, Tensor]


def folded_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the folded parameters. Public."""
    hidden, inner = spec.hidden, spec.intermediate
    turned = spec.n_heads + spec.n_kv_heads
    shapes: dict[str, tuple[int, ...]] = {"embed": (spec.vocab, hidden), "lm_head": (hidden, spec.vocab)}
    matrices = {
        "qkv": (hidden, (turned + spec.n_kv_heads) * spec.head_dim),
        "o": (spec.n_heads * spec.head_dim, hidden),
        _first(spec): (hidden, inner * len(_inner(spec))),
        "down": (inner, hidden),
    }
    gains = _gain_shapes(spec)
    for layer in range(spec.n_layers):
        at = f"layers.{layer}"
        for name, shape in matrices.items():
            shapes[f"{at}.{name}"] = shape
            if has_bias(spec, name):
                shapes[f"{at}.{name}.bias"] = shape[1:]
        shapes |= {f"{at}.{name}": shape for name, shape in gains.items()}
    if spec.architecture.learned_positions:
        shapes["positions"] = (spec.max_positions, hidden)
    if spec.architecture.norm == "layer":
        shapes["lm_head.bias"] = (spec.vocab,)
    return shapes


def has_bias(spec: ModelSpec, name: str) -> bool:
    """Whether a folded matrix of a layer has a bias: its own, or that of the norm before it."""
    shifted = spec.architecture.norm == "layer" and name in ("qkv", "up", "gate_up")
    return shifted or spec.has_bias({"qkv": "q", "gate_up": "up"}.get(name, name))


def query_factor(spec: ModelSpec) -> float:
    """The factor in the query projection; with norms of queries it is in their gain instead."""
    return 1.0 if spec.architecture.query_key_norm else spec.score_factor


def fold(spec: ModelSpec, weights: Weights) -> dict[str, Tensor]:
    """The folded parameters, float32, with the names and shapes of `folded_shapes`."""
    return dict(Folded(spec, weights))


class Folded(Mapping[str, Tensor]):
    """The result of `fold`, layer by layer: one is folded when a parameter of it is read, and kept until another is.

    What is not a matrix is kept for good, so that layers are folded once by who reads the matrices first.

    Args:
        spec: The model's specification.
        weights: Its canonical parameters.
    """

    def __init__(self, spec: ModelSpec, weights: Weights) -> None:
        self._spec, self._weights, self._shapes = spec, weights, folded_shapes(spec)
        self._at, self._kept, self._small = "", dict[str, Tensor](), dict[str, Tensor]()

    def __getitem__(self, name: str) -> Tensor:
        """Returns a parameter, contiguous."""
        if name not in self._shapes:
            raise KeyError(name)
        if name in self._small:
            return self._small[name]
        if (at := _group(name)) != self._at:
            self._at, self._kept = "", {}  # before the next layer takes memory
            self._at, self._kept = at, self._fold(at)
            self._small |= {other: tensor for other, tensor in self._kept.items() if tensor.dim() != 2}
        return self._kept[name].contiguous()

    def __iter__(self) -> Iterator[str]:
        """Lists the names."""
        return iter(self._shapes)

    def __len__(self) -> int:
        """Counts the names."""
        return len(self._shapes)

    def _fold(self, at: str) -> dict[str, Tensor]:
        spec, weights = self._spec, self._weights
        if at == "embed":
            return {at: weights["embed"] * spec.embed_scale if spec.embed_scale != 1 else weights["embed"]}
        if at == "positions":
            return {at: weights["positions"]}
        if at != "lm_head":
            return _fold_layer(spec, weights, at)
        head = weights["embed"].T if spec.tied else weights["lm_head.weight"]
        return _after_norm(at, [(head, None)], weights, "final_norm", bias=spec.architecture.norm == "layer")


def _group(name: str) -> str:
    """What is folded with a parameter: `layers.3` for `layers.3.qkv.bias`, `lm_head` for its bias."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "layers" else parts[0]


def _inner(spec: ModelSpec) -> tuple[str, ...]:
    """The matrices from the residual stream to the width of the MLP."""
    return ("gate", "up") if spec.architecture.gated else ("up",)


def _first(spec: ModelSpec) -> str:
    return "_".join(_inner(spec))


def _gain_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    if spec.architecture.query_key_norm:
        shapes["qk_gain"] = (spec.n_heads + spec.n_kv_heads, 1, spec.head_dim)
    if spec.architecture.post_norms:
        shapes |= {"attn_gain": (spec.hidden,), "mlp_gain": (spec.hidden,)}
    return shapes


def _fold_layer(spec: ModelSpec, weights: Weights, at: str) -> dict[str, Tensor]:
    def matrix(name: str, factor: float = 1.0) -> tuple[Tensor, Tensor | None]:
        bias = weights.get(f"{at}.{name}.bias")
        return weights[f"{at}.{name}.weight"] * factor, None if bias is None else bias * factor

    qkv = [matrix("q", query_factor(spec)), matrix("k"), matrix("v")]
    first, inner = _first(spec), [matrix(name) for name in _inner(spec)]
    folded = _after_norm(f"{at}.qkv", qkv, weights, f"{at}.attn_norm", bias=has_bias(spec, "qkv"))
    folded |= _after_norm(f"{at}.{first}", inner, weights, f"{at}.mlp_norm", bias=has_bias(spec, first))
    for name in ("o", "down"):
        folded[f"{at}.{name}"], bias = matrix(name)
        if bias is not None:
            folded[f"{at}.{name}.bias"] = bias
    if spec.architecture.query_key_norm:
        gains = [weights[f"{at}.q_norm.weight"] * spec.score_factor] * spec.n_heads
        gains += [weights[f"{at}.k_norm.weight"]] * spec.n_kv_heads
        folded[f"{at}.qk_gain"] = torch.stack(gains).unsqueeze(1)
    if spec.architecture.post_norms:
        folded |= {f"{at}.{part}_gain": weights[f"{at}.{part}_post_norm.weight"] for part in ("attn", "mlp")}
    return folded


def _after_norm(
    name: str, parts: list[tuple[Tensor, Tensor | None]], weights: Weights, norm: str, *, bias: bool
) -> dict[str, Tensor]:
    """(x * gain + shift) @ W + b  =  x @ (gain * W) + (shift @ W + b), for several W, concatenated by columns."""
    gain, shift = weights[f"{norm}.weight"], weights.get(f"{norm}.bias")
    folded = {name: torch.cat([gain.unsqueeze(1) * matrix for matrix, _ in parts], dim=1)}
    if bias:
        columns = [torch.zeros(matrix.shape[1]) if own is None else own for matrix, own in parts]
        moved = [shift @ matrix if shift is not None else 0.0 for matrix, _ in parts]
        folded[f"{name}.bias"] = torch.cat([own + extra for own, extra in zip(columns, moved, strict=True)])
    return folded
