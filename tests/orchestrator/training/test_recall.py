"""Recall against explicit sums, and at the extremes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from orchestrator.training.backbone import Backbone
from orchestrator.training.recall import SHARES, Recall, measure
from tests.helpers.small_training import KINDS, MODEL, silent, task

CONTEXT, LENGTH = 40, 52


def windows(count: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(8)
    return [torch.randint(256, (LENGTH,), generator=generator).tolist() for _ in range(count)]


def measured(kind: Any = "locret", count: int = 2) -> dict[tuple[str, float], Recall]:
    here = task(kind)
    found = measure(here.backbone, here.head(here.start()), windows(count), CONTEXT, lambda: None)
    return {(row.policy, row.share): row for row in found}


def attention(q: Tensor, k: Tensor, head: int, at: int) -> Tensor:
    """The attention of one query of one head to each token of the context."""
    scores = torch.stack([q[head, at] @ k[head // 2, token] for token in range(CONTEXT)])
    return scores.softmax(0)


def test_streaming_llms_recall_is_the_attention_on_first_and_last_tokens() -> None:
    backbone, by_hand = Backbone(MODEL), []
    kept = [0, 1, 2, 3, *range(CONTEXT - 6, CONTEXT)]  # a quarter of 40, four of them sinks
    (window,) = windows(1)
    for seen in backbone.watch(window):
        for group in range(2):
            rows = [
                attention(seen.q, seen.k, head, at)
                for head in (2 * group, 2 * group + 1)
                for at in range(CONTEXT, LENGTH)
            ]
            mass = sum(float(row[kept].sum()) for row in rows) / len(rows)
            best = torch.stack(rows).sum(0).topk(len(kept)).indices.tolist()
            by_hand.append((mass, len(set(best) & set(kept)) / len(kept)))
    found = measured(count=1)["streaming_llm", 0.25]
    assert found.mass == pytest.approx(sum(mass for mass, _ in by_hand) / len(by_hand), abs=1e-4)
    assert found.top == pytest.approx(sum(top for _, top in by_hand) / len(by_hand), abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_keeping_more_recalls_more_and_random_recalls_its_share(kind: Any) -> None:
    found = measured(kind, count=6)
    for policy in {name for name, _ in found}:
        masses = [found[policy, share].mass for share in sorted(SHARES)]
        assert masses == sorted(masses)
        assert masses[0] > 0
        assert masses[-1] < 1
    assert found["random", 0.5].mass == pytest.approx(0.5, abs=0.1)
    assert found["random", 0.5].top == pytest.approx(0.5, abs=0.1)
    assert found["h2o", 0.25].mass > found["random", 0.25].mass
    assert len(found) == 5 * len(SHARES)


def test_recall_does_not_depend_on_what_was_measured_before() -> None:
    here = task("attention_gate")
    head = here.head(here.start())
    first = measure(here.backbone, head, windows(1), CONTEXT, silent)
    assert measure(here.backbone, head, windows(1), CONTEXT, silent) == first
