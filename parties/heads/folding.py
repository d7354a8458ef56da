"""Heads in the form that an engine installs beside the model's weights, by their owner, the server."""

from collections.abc import Mapping

import torch
from torch import Tensor

from parties.heads.format import Head, fingerprint, load_head
from parties.models.spec import ModelSpec
from parties.policies.base import Policy

Shapes = dict[str, tuple[int, ...]]


def head_of(policy: Policy, spec: ModelSpec, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a policy's heads add to the parameters of an engine; nothing if the policy has none.

    Args:
        policy: the policy.
        spec: the model's facts.
        weights: its canonical parameters.

    Raises:
        HeadError: the policy's file of heads cannot be used with this model.
    """
    if policy.trained is None:
        return {}
    head = load_head(getattr(policy, "head", ""), policy.trained, spec, fingerprint(spec, weights))
    return fold_head(head, spec, weights)


def fold_head(head: Head, spec: ModelSpec, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`layers.<l>.head_in` and `.head_out`, with biases where there are any, float32.

    The queries that an engine gives to a policy are scaled by 1/sqrt(head_dim), and its normalised rows lack the norm's
    gain and bias; both are made up for here, as `parties.models.folding` does for the model's own matrices. A gate's
    queries are scaled by 1/sqrt(width).

    Args:
        head: the heads.
        spec: the model's facts.
        weights: the model's canonical parameters.
    """
    folded: dict[str, Tensor] = {}
    for layer in range(spec.n_layers):
        inner, at = head.tensors[f"layers.{layer}.in"], f"layers.{layer}"
        if head.kind == "locret":
            rows = torch.ones(inner.shape[0], 1)
            rows[: spec.n_heads * spec.head_dim] = spec.head_dim**0.5
            folded[f"{at}.head_in"] = inner * rows
        else:
            columns = torch.ones(inner.shape[1])
            columns[: inner.shape[1] // 3] = head.width**-0.5
            inner = inner * columns
            folded[f"{at}.head_in"] = inner * weights[f"{at}.attn_norm.weight"].unsqueeze(1)
            if (shift := weights.get(f"{at}.attn_norm.bias")) is not None:
                folded[f"{at}.head_in.bias"] = shift @ inner
            folded[f"{at}.head_out.bias"] = head.tensors[f"{at}.out.bias"]
        folded[f"{at}.head_out"] = head.tensors[f"{at}.out"]
    return {name: tensor.contiguous() for name, tensor in folded.items()}


def shapes_of(folded: Mapping[str, Tensor]) -> Shapes:
    """What is public of folded heads: their names and shapes."""
    return {name: tuple(tensor.shape) for name, tensor in folded.items()}
