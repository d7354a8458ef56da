"""Training of Locret's heads (arXiv 2410.01805, section 3.2): a regression to the largest logit among the answer's."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from orchestrator.training.task import Observed, Task
from parties.heads.format import Kind


class LocretTask(Task):
    """Locret's heads.

    The target for the score of context token i and key head g is S[g, i] = max over the answer's tokens p and the query
    heads of g's group of q_p . k_i / sqrt(head_dim). The loss is SmoothL1(score, S) plus `smoothness` times the
    mean square of the differences of neighbours' scores.
    """

    kind: ClassVar[Kind] = "locret"
    objective: ClassVar[tuple[str, ...]] = ("regression", "smoothing")

    def observe(self, window: list[int]) -> Observed:
        """`rows` [layers, context, (heads + 2 kv_heads) head_dim] and `target` [layers, kv_heads, context]."""
        context, rows, targets = self.settings.context, [], []
        for seen in self.backbone.watch(window):
            rows.append(seen.qkv[:context].half())
            targets.append(largest_logits(seen.q[:, context:], seen.k[:, :context]))
        return {"rows": torch.stack(rows), "target": torch.stack(targets)}

    def loss(self, parameters: Mapping[str, Tensor], seen: Observed) -> dict[str, Tensor]:
        """`regression` and `smoothing`."""
        scores = locret_scores(parameters, seen["rows"].float())
        return {
            "regression": functional.smooth_l1_loss(scores, seen["target"]),
            "smoothing": self.settings.smoothness * scores.diff(dim=-1).square().mean(),
        }


def locret_scores(parameters: Mapping[str, Tensor], rows: Tensor) -> Tensor:
    """W2 silu(W1 [q; k; v]): [layers, tokens, (heads + 2 kv_heads) head_dim] -> [layers, kv_heads, tokens]."""
    return (functional.silu(rows @ parameters["in"]) @ parameters["out"]).transpose(1, 2)


def largest_logits(q: Tensor, k: Tensor) -> Tensor:
    """The largest q . k of each key: [heads, answer, d], [kv_heads, context, d] -> [kv_heads, context]."""
    grouped = q.reshape(k.shape[0], -1, q.shape[2])
    return (grouped @ k.transpose(1, 2)).amax(1)
