"""An independent forward pass from canonical parameters: plain, slow, one head at a time, in float64 by default.

Written from the papers, not from the decoder: Llama (arXiv 2302.13971), RoFormer (2104.09864), GQA (2305.13245), GPT-2.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from parties.models.spec import ModelSpec

Observer = Callable[[int, Tensor, Tensor, Tensor], None]


def forward(
    spec: ModelSpec,
    weights: Mapping[str, Tensor],
    token_ids: Sequence[int],
    *,
    observe: Observer | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Logits of every position, [n, vocab].

    Args:
        spec: The model.
        weights: Canonical parameters.
        token_ids: The n tokens.
        observe: Called in each layer as observe(layer, q, k, v) with q [n_heads, n, head_dim] and k, v
            [n_kv_heads, n, head_dim]; q and k carry their positions, q is not scaled.
        dtype: The type of all arithmetic.
    """
    w = {name: tensor.to(dtype) for name, tensor in weights.items()}
    x = w["embed"][list(token_ids)]
    if spec.family == "gpt2":
        x = x + w["positions"][: len(token_ids)]
    for layer in range(spec.n_layers):
        at = f"layers.{layer}"
        x = x + attention(spec, w, layer, norm(spec, w, f"{at}.attn_norm", x), observe)
        x = x + mlp(spec, w, at, norm(spec, w, f"{at}.mlp_norm", x))
    x = norm(spec, w, "final_norm", x)
    return x @ (w["embed"].T if spec.tied else w["lm_head.weight"])


def linear(w: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    y = x @ w[f"{name}.weight"]
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def norm(spec: ModelSpec, w: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    if spec.family == "gpt2":
        x = x - x.mean(dim=-1, keepdim=True)
    size = torch.sqrt((x * x).mean(dim=-1, keepdim=True) + spec.norm_eps)
    x = x / size * w[f"{name}.weight"]
    return x + w[f"{name}.bias"] if spec.family == "gpt2" else x


def attention(spec: ModelSpec, w: Mapping[str, Tensor], layer: int, x: Tensor, observe: Observer | None) -> Tensor:
    at = f"layers.{layer}"
    q = heads(linear(w, f"{at}.q", x), spec.n_heads)
    k = heads(linear(w, f"{at}.k", x), spec.n_kv_heads)
    v = heads(linear(w, f"{at}.v", x), spec.n_kv_heads)
    if spec.family == "llama":
        q, k = rotate(q, spec.rope_theta), rotate(k, spec.rope_theta)
    if observe is not None:
        observe(layer, q, k, v)
    n = x.shape[0]
    future = torch.ones(n, n, dtype=torch.bool).triu(diagonal=1)
    mixed = []
    for head in range(spec.n_heads):
        shared = head // (spec.n_heads // spec.n_kv_heads)
        scores = q[head] @ k[shared].T / math.sqrt(spec.head_dim)
        mixed.append(torch.softmax(scores.masked_fill(future, -math.inf), dim=-1) @ v[shared])
    return linear(w, f"{at}.o", torch.cat(mixed, dim=-1))


def heads(x: Tensor, count: int) -> Tensor:
    """[n, count * d] -> [count, n, d]."""
    return x.reshape(x.shape[0], count, -1).transpose(0, 1)


def rotate(x: Tensor, theta: float) -> Tensor:
    """Turns the pair (x[i], x[i + d/2]) at position p by the angle p * theta ** (-2 i / d): [heads, n, d]."""
    n, d = x.shape[1], x.shape[2]
    turned = torch.empty_like(x)
    position = torch.arange(n, dtype=torch.float64)
    for i in range(d // 2):
        angle = position * theta ** (-2 * i / d)
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        turned[:, :, i] = x[:, :, i] * cos - x[:, :, i + d // 2] * sin
        turned[:, :, i + d // 2] = x[:, :, i + d // 2] * cos + x[:, :, i] * sin
    return turned


def mlp(spec: ModelSpec, w: Mapping[str, Tensor], at: str, x: Tensor) -> Tensor:
    up = linear(w, f"{at}.up", x)
    if spec.family == "llama":
        return linear(w, f"{at}.down", activation(spec.activation, linear(w, f"{at}.gate", x)) * up)
    return linear(w, f"{at}.down", activation(spec.activation, up))


def activation(kind: str, x: Tensor) -> Tensor:
    if kind == "silu":
        return x / (1 + torch.exp(-x))
    if kind == "gelu":
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
