"""Trained heads in the form that the server, their owner, installs together with the model's weights."""

from collections.abc import Mapping

import torch
from torch import Tensor

from parties.heads.format import Head, fingerprint, load_head
from parties.models.folding import query_factor
from parties.models.spec import ModelSpec
from parties.policies.base import Policy

Shapes = dict[str, tuple[int, ...]]


def head_of(policy: Policy, spec: ModelSpec, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the parameters that a policy's heads add to those of an engine; none if the policy has no heads.

    Args:
        policy: The policy.
        spec: The model's specification.
        weights: The model's canonical parameters.

    Raises:
        HeadError: The policy's file of heads cannot be used with this model.
    """
    if policy.trained is None:
        return {}
    head = load_head(getattr(policy, "head", ""), policy.trained, spec, fingerprint(spec, weights))
    return fold_head(head, spec, weights)


def fold_head(head: Head, spec: ModelSpec, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns `layers.<l>.head_in` and `.head_out`, and their biases if there are any, float32.

    The queries that an engine passes to a policy have a factor (`query_factor`), and its normalised rows lack the
    norm's gain and bias. Both are folded into the heads, as `parties.models.folding` does for the model's matrices. A
    gate's queries are scaled by 1/sqrt(width).

    Args:
        head: The heads.
        spec: The model's specification.
        weights: The model's canonical parameters.
    """
    folded: dict[str, Tensor] = {}
    for layer in range(spec.n_layers):
        inner, at = head.tensors[f"layers.{layer}.in"], f"layers.{layer}"
        if head.kind == "locret":
            rows = torch.ones(inner.shape[0], 1)
            rows[: spec.n_heads * spec.head_dim] = 1 / query_factor(spec)
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
    """Returns the public part of folded heads: their names and shapes."""
    return {name: tuple(tensor.shape) for name, tensor in folded.items()}
