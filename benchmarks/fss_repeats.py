"""The expected number of segments of a token that are run again after a truncation failure, by stage.

    python benchmarks/fss_repeats.py [--tokens 1024]

The truncation of an element that is declared to stay below 2^k fails with probability 2^(k - 63), whatever it is
(`gates.truncate`): the sum over a decode step is exact. For comparison, the elements of the same step that lie in a
range 2^10 times as wide are counted and divided by 2^10. SmolLM2-135M's shapes, random weights; 30 layers are
extrapolated from the difference of four and two, and the logits of 49,152 tokens from those of 1,024.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fss_gates
import torch

from parties.engines.fss.arithmetic import gates, ring
from parties.engines.fss.arithmetic.values import Masked
from parties.engines.fss.randomness.source import CLIENT, DEALER
from parties.policies import Full, MPCache
from parties.policies.base import Policy

WIDER = 10
LAYERS = 30


@contextmanager
def replaced(truncate: Any) -> Iterator[None]:
    """Replaces `gates.truncate` in all programs."""
    honest = gates.truncate
    users = [m for name, m in sys.modules.items() if name.startswith("parties.") and vars(m).get("truncate") is honest]
    for module in users:
        vars(module)["truncate"] = truncate
    try:
        yield
    finally:
        for module in users:
            vars(module)["truncate"] = honest


@contextmanager
def watched(expected: Counter[str], seen: Counter[str]) -> Iterator[None]:
    """Adds up the failure probabilities of truncations, exact and as counted in a wider range."""
    honest = gates.truncate

    def truncate(x: Masked, scale: int = ring.FRACTION_BITS) -> Masked:
        if x.scale > scale and x.source.rank == DEALER:
            expected[x.source.meter.current] += x.public.numel() * 2.0 ** (x.bits - 63)  # type: ignore[assignment]
        if x.scale > scale and x.source.rank == CLIENT:
            edge = 2**63 - 2 ** min(x.bits + WIDER, 62)
            found = int(((x.public >= edge) | (x.public < -edge)).sum())
            seen[x.source.meter.current] += found / 2**WIDER
        return honest(x, scale)

    with replaced(truncate):
        yield


def step(policy: Policy, layers: int, tokens: int) -> tuple[Counter[str], Counter[str]]:
    """Returns the expected and the counted number of failures in one decode step, by stage."""
    expected: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    with watched(expected, seen):
        fss_gates.step(policy, layers, tokens)
    return expected, seen


def whole(few: Counter[str], more: Counter[str]) -> dict[str, float]:
    """Extrapolates steps of two and of four layers to all layers and the whole vocabulary."""
    words = {"lm_head": 49_152 / fss_gates.SMOLLM2.vocab, "argmax": 49_152 / fss_gates.SMOLLM2.vocab}
    return {
        stage: (more[stage] + (more[stage] - few[stage]) * (LAYERS - 4) / 2) * words.get(stage, 1.0) for stage in more
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=1024)
    tokens: int = parser.parse_args().tokens
    torch.set_num_threads(1)
    torch.manual_seed(0)
    policies: tuple[Any, ...] = (Full(), MPCache())
    for policy in policies:
        (few, _), (more, more_seen) = (step(policy, layers, tokens) for layers in (2, 4))
        stages = whole(few, more)
        total, counted = sum(stages.values()), sum(more_seen.values())
        print(f"\n{policy.name}, {tokens} prompt tokens: {total:.4f} repeats per token of {LAYERS} layers")
        print(f"  four layers: {sum(more.values()):.5f} expected, {counted:.5f} counted")
        for stage, chance in sorted(stages.items(), key=lambda item: -item[1]):
            print(f"  {stage:12} {chance:.5f}")


if __name__ == "__main__":
    main()
