"""Folds the parameters of a model into the few matrices that a private decoder multiplies by.

The owner of the weights does this before anything is shared. The gain and bias of a norm go into the matrices that
follow it, the 1/sqrt(head_dim) of attention into the query projection, and matrices with the same input are
concatenated, so that they cost one product instead of several.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from parties.models.spec import ModelSpec

Weights = Mapping[str, Tensor]


def folded_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the folded parameters. Public."""
    hidden, inner = spec.hidden, spec.intermediate
    qkv = (spec.n_heads + 2 * spec.n_kv_heads) * spec.head_dim
    first = "gate_up" if spec.family == "llama" else "up"
    width = 2 * inner if spec.family == "llama" else inner
    shapes: dict[str, tuple[int, ...]] = {"embed": (spec.vocab, hidden), "lm_head": (hidden, spec.vocab)}
    matrices = {
        "qkv": (hidden, qkv),
        "o": (spec.n_heads * spec.head_dim, hidden),
        first: (hidden, width),
        "down": (inner, hidden),
    }
    for layer in range(spec.n_layers):
        for name, shape in matrices.items():
            shapes[f"layers.{layer}.{name}"] = shape
            if has_bias(spec, name):
                shapes[f"layers.{layer}.{name}.bias"] = shape[1:]
    if spec.family == "gpt2":
        shapes["positions"] = (spec.max_positions, hidden)
        shapes["lm_head.bias"] = (spec.vocab,)
    return shapes


def has_bias(spec: ModelSpec, name: str) -> bool:
    """Whether a folded matrix of a layer has a bias."""
    return spec.family == "gpt2" or (name == "qkv" and spec.qkv_bias)


def fold(spec: ModelSpec, weights: Weights) -> dict[str, Tensor]:
    """The folded parameters, float32, with the names and shapes of `folded_shapes`."""
    folded = {"embed": weights["embed"]}
    head = weights["embed"].T if spec.tied else weights["lm_head.weight"]
    folded |= _after_norm("lm_head", [(head, None)], weights, "final_norm", bias=spec.family == "gpt2")
    if spec.family == "gpt2":
        folded["positions"] = weights["positions"]
    for layer in range(spec.n_layers):
        folded |= _fold_layer(spec, weights, f"layers.{layer}")
    return {name: tensor.contiguous() for name, tensor in folded.items()}


def _fold_layer(spec: ModelSpec, weights: Weights, at: str) -> dict[str, Tensor]:
    def matrix(name: str, factor: float = 1.0) -> tuple[Tensor, Tensor | None]:
        bias = weights.get(f"{at}.{name}.bias")
        return weights[f"{at}.{name}.weight"] * factor, None if bias is None else bias * factor

    qkv = [matrix("q", spec.head_dim**-0.5), matrix("k"), matrix("v")]
    first, inner = ("gate_up", ["gate", "up"]) if spec.family == "llama" else ("up", ["up"])
    folded = _after_norm(f"{at}.qkv", qkv, weights, f"{at}.attn_norm", bias=has_bias(spec, "qkv"))
    folded |= _after_norm(
        f"{at}.{first}", [matrix(name) for name in inner], weights, f"{at}.mlp_norm", bias=has_bias(spec, first)
    )
    for name in ("o", "down"):
        folded[f"{at}.{name}"], bias = matrix(name)
        if has_bias(spec, name) and bias is not None:
            folded[f"{at}.{name}.bias"] = bias
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
