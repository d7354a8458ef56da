"""The cost of retries, and of variants that reveal nothing to the dealer: counts, by kind of segment.

    python benchmarks/fss_retries.py [--tokens 1024] [--prompt 512]

A dry run on shapes gives, for each segment of a token and of a prompt inside the computation: the public probability
that it fails, its rounds and bytes, and the numbers that it passes to later segments, whose masks a spare would have to
continue. The costs in docs/design/0008-retries.md follow from them. SmolLM2-135M's sizes.
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import fss_repeats

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.prefill import chunked
from parties.decoding.program import Program, run
from parties.engines.fss.arithmetic import gates, ring
from parties.engines.fss.arithmetic.matrices import ServerMatrix, is_matrix
from parties.engines.fss.arithmetic.opening import Opening, dealer_openings
from parties.engines.fss.arithmetic.values import Masked
from parties.engines.fss.computation import Computation
from parties.engines.fss.cost.counting import CountingSource
from parties.engines.fss.cost.meta_tensors import MetaTensors, meta_tensor
from parties.engines.fss.cost.shapes import prefilled
from parties.engines.fss.dealing.plan import Plan
from parties.metering.meter import StageMeter
from parties.models.folding import folded_shapes
from parties.models.spec import ModelSpec
from parties.policies import Full, MPCache
from parties.policies.base import Policy

SMOLLM2 = ModelSpec(
    family="llama", n_layers=30, hidden=576, n_heads=9, n_kv_heads=3, head_dim=64, intermediate=1536, vocab=49_152,
    max_positions=8192, norm_eps=1e-5, activation="silu", tied=True,
)  # fmt: skip
GOAL = 2.0**-40


@dataclass
class Segment:
    """One attempt of a segment.

    Attributes:
        risk: Expected number of truncation failures.
        rounds: Online rounds.
        online: Online bytes each way.
        offline: Offline bytes to client and server.
        spare: Offline bytes up to the last truncation, which a second attempt needs.
        left: Number of elements that later segments use.
    """

    risk: float = 0.0
    rounds: int = 0
    online: int = 0
    offline: int = 0
    spare: int = 0
    left: int = 0


class DryRun:
    """The dealer's side of a cell on shapes, segment by segment."""

    def __init__(self) -> None:
        self._now = Segment()
        source = CountingSource(StageMeter(), self._dealt, self._dealt)
        self._source, self.engine, self._epoch = source, Computation(source), 0
        shapes = folded_shapes(SMOLLM2)
        matrices = {name: shape for name, shape in shapes.items() if is_matrix(name, shape)}
        self.engine.matrices = {name: ServerMatrix(meta_tensor((out, rows))) for name, (rows, out) in matrices.items()}
        run(self.engine.install(shapes, None), dealer_openings)

    def segment(self, program: Callable[[], Program[Any]], cache: Cache) -> Segment:
        """Counts a segment."""
        self._now, self._epoch = Segment(), self._epoch + 1
        before = sum(value.shape.numel() for value in cache.values().values())
        self._source.begin(self._epoch)
        run(program(), self._open)
        self._source.flush()
        after = sum(value.shape.numel() for value in cache.values().values())
        rows = sum(rows.shape.numel() for layer in cache.layers for rows in layer.rows)
        self._now.left = max(0, after - before) + rows
        return self._now

    def truncate(self, x: Masked, scale: int = ring.FRACTION_BITS) -> Masked:
        """Counts a truncation and calls `gates.truncate`."""
        if x.scale > scale:
            self._now.risk += x.shape.numel() * 2.0 ** (min(x.bits, 62) - 63)
            buffered = self._source.to_client.size + self._source.to_server.size
            self._now.spare = self._now.offline + buffered + 8 * x.shape.numel()
        return TRUNCATE(x, scale)

    def _open(self, wanted: Sequence[Opening]) -> list[Any]:
        self._now.rounds += 1
        self._now.online += sum(math.prod(o.hidden.shape) * o.hidden.dtype.itemsize for o in wanted)
        return dealer_openings(wanted)

    def _dealt(self, size: int) -> None:
        self._now.offline += size


TRUNCATE = gates.truncate


def segments(policy: Policy, tokens: int, *, prompt: bool) -> list[Segment]:
    """Returns the segments of a prompt inside the computation, or of the token after `tokens` cached ones."""
    with MetaTensors():
        dry_run = DryRun()
        decoder = Decoder(dry_run.engine, SMOLLM2, policy)
        sizes = [chunked(decoder, tokens)] if prompt else []
        begun = Cache.empty(SMOLLM2.n_layers) if prompt else prefilled(SMOLLM2, policy, tokens - 1)
        plan = Plan.of(decoder.workload(begun, 1, prefill=sizes), 1)
        (cache,) = plan.caches(dry_run.engine).sequences
        before, steps = plan.programs(dry_run.engine, cache)
        with fss_repeats.replaced(dry_run.truncate):
            found = [dry_run.segment(program, cache) for program in before]
            return found if prompt else [dry_run.segment(program, cache) for program in steps]


def poisson(mean: float, count: int) -> float:
    """Returns P[N = count] for a Poisson variable."""
    return math.exp(count * math.log(mean) - mean - math.lgamma(count + 1)) if mean else float(not count)


def spares(mean: float) -> int:
    """Returns the number of spares for which the dealer's advantage is below GOAL: at most `mean` if they run out."""
    return next(s for s in range(10**6) if mean * poisson(mean, s) < GOAL)


def report(title: str, found: list[Segment]) -> None:
    """Prints the cost as it is, with two attempts dealt per segment, and with spares for each kind of segment."""
    risky = [segment for segment in found if segment.risk]
    rounds, online, offline = (sum(getattr(s, name) for s in found) for name in ("rounds", "online", "offline"))
    chances = [1 - math.exp(-s.risk) for s in risky]
    total, most = sum(s.risk for s in found), max(s.risk for s in found)
    print(f"\n{title}: {len(found)} segments, {total:.4f} retries expected, at most {most:.4f} in one segment")
    for times in (2, 3, 12):
        print(f"  segments that fail {times} times in a row: {sum(p**times for p in chances):.1e}")
    _line("as it is", rounds, online, offline)
    handing = [s for s in risky if s.left]
    rounds, online = rounds + len(handing), online + sum(8 * s.left for s in handing)
    _line("two attempts", rounds, online, offline + sum(s.spare for s in risky))
    kinds: defaultdict[tuple[int, int], list[Segment]] = defaultdict(list)
    for s in risky:
        kinds[s.rounds, s.offline // 1000].append(s)
    for kind in kinds.values():
        needed = spares(sum(s.risk for s in kind))
        offline += needed * (kind[0].spare + (len(kind) - 1) * MATRIX_PRODUCTS)
        print(f"    {needed} spares for {len(kind)} segments of {kind[0].rounds} rounds")
    _line("spares", rounds, online, offline)


def _line(way: str, rounds: int, online: int, offline: int) -> None:
    print(f"  {way:13} {rounds:6,} rounds {online / 1e6:9.1f} MB online each way {offline / 1e6:9.1f} MB offline")


MATRIX_PRODUCTS = 8 * sum(out for name, (_, out) in folded_shapes(SMOLLM2).items() if name.startswith("layers.0."))
"""Bytes dealt for one row's products with a layer's matrices; a spare for any layer needs those of all layers."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--prompt", type=int, default=512)
    given = parser.parse_args()
    policies: tuple[Policy, ...] = (Full(), MPCache())
    for policy in policies:
        report(f"{policy.name}, a token after {given.tokens}", segments(policy, given.tokens, prompt=False))
    report(f"full, a prompt of {given.prompt}", segments(Full(), given.prompt, prompt=True))


if __name__ == "__main__":
    main()
