"""What retries cost, and what it would cost that the dealer learns nothing from them: counts, by kind of segment.

    python benchmarks/fss_retries.py [--tokens 1024] [--prompt 512]

A walk with shapes alone gives for each segment of a token, and of a prompt that is run inside: the chance that it
fails, which is public, its rounds and bytes, and the numbers that it leaves to later segments, whose masks a spare
would have to take over. From them follow the prices in docs/design/0008-retries.md. SmolLM2-135M's sizes.
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import fss_repeats

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.prefill import chunked
from parties.decoding.program import run
from parties.engines.fss.arithmetic import gates, ring
from parties.engines.fss.arithmetic.matrices import ServerMatrix
from parties.engines.fss.arithmetic.opening import Opening, dealers
from parties.engines.fss.arithmetic.values import Masked
from parties.engines.fss.computation import Computation
from parties.engines.fss.cost.counting import CountingSource
from parties.engines.fss.cost.meta_tensors import MetaTensors, meta_tensor
from parties.engines.fss.cost.shapes import prefilled
from parties.engines.fss.dealing.plan import Piece, Plan
from parties.engines.fss.engine import is_matrix
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
        risk: truncation failures to be expected.
        rounds: online.
        online: bytes each way.
        offline: bytes to client and server.
        spare: of these, what comes before the last truncation: a second attempt needs no more.
        left: numbers that later segments use.
    """

    risk: float = 0.0
    rounds: int = 0
    online: int = 0
    offline: int = 0
    spare: int = 0
    left: int = 0


class Walker:
    """The dealer's side of a cell, with shapes alone, segment by segment."""

    def __init__(self) -> None:
        self._now = Segment()
        source = CountingSource(StageMeter(), self._dealt, self._dealt)
        self._source, self.engine, self._epoch = source, Computation(source), 0
        shapes = folded_shapes(SMOLLM2)
        matrices = {name: shape for name, shape in shapes.items() if is_matrix(name, shape)}
        self.engine.matrices = {name: ServerMatrix(meta_tensor((out, rows))) for name, (rows, out) in matrices.items()}
        run(self.engine.install(shapes, None), dealers)

    def segment(self, piece: Piece, cache: Cache) -> Segment:
        """Counts one."""
        self._now, self._epoch = Segment(), self._epoch + 1
        before = sum(value.shape.numel() for value in cache.values().values())
        self._source.begin(self._epoch)
        run(piece(), self._open)
        self._source.flush()
        after = sum(value.shape.numel() for value in cache.values().values())
        rows = sum(rows.shape.numel() for layer in cache.layers for rows in layer.rows)
        self._now.left = max(0, after - before) + rows
        return self._now

    def truncate(self, x: Masked, scale: int = ring.FRACTION_BITS) -> Masked:
        """`gates.truncate`, counted."""
        if x.scale > scale:
            self._now.risk += x.shape.numel() * 2.0 ** (min(x.bits, 62) - 63)
            waiting = self._source.to_client.size + self._source.to_server.size
            self._now.spare = self._now.offline + waiting + 8 * x.shape.numel()
        return TRUNCATE(x, scale)

    def _open(self, wanted: Sequence[Opening]) -> list[Any]:
        self._now.rounds += 1
        self._now.online += sum(math.prod(o.hidden.shape) * o.hidden.dtype.itemsize for o in wanted)
        return dealers(wanted)

    def _dealt(self, size: int) -> None:
        self._now.offline += size


TRUNCATE = gates.truncate


def segments(policy: Policy, tokens: int, *, prompt: bool) -> list[Segment]:
    """Those of a prompt that is run inside, or those of the token after `tokens` cached ones."""
    with MetaTensors():
        walker = Walker()
        decoder = Decoder(walker.engine, SMOLLM2, policy)
        sizes = chunked(decoder, tokens) if prompt else None
        begun = Cache.empty(SMOLLM2.n_layers) if prompt else prefilled(SMOLLM2, policy, tokens - 1)
        cache = (plan := Plan.of(decoder.workload(begun, 1, prefill=sizes), 1)).cache(walker.engine)
        before, steps = plan.programs(walker.engine, cache)
        with fss_repeats.replaced(walker.truncate):
            found = [walker.segment(piece, cache) for piece in before]
            return found if prompt else [walker.segment(piece, cache) for piece in steps]


def poisson(mean: float, count: int) -> float:
    """P[N = count]."""
    return math.exp(count * math.log(mean) - mean - math.lgamma(count + 1)) if mean else float(not count)


def spares(mean: float) -> int:
    """How many make the dealer's advantage smaller than GOAL: mean bounds it, where the one too many comes."""
    return next(s for s in range(10**6) if mean * poisson(mean, s) < GOAL)


def report(title: str, found: list[Segment]) -> None:
    """Counts as they are, with two attempts dealt of each segment, and with generic spares for each kind of segment."""
    risky = [segment for segment in found if segment.risk]
    rounds, online, offline = (sum(getattr(s, name) for s in found) for name in ("rounds", "online", "offline"))
    chances = [1 - math.exp(-s.risk) for s in risky]
    total, most = sum(s.risk for s in found), max(s.risk for s in found)
    print(f"\n{title}: {len(found)} segments, {total:.4f} retries expected, at most {most:.4f} of one")
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
"""Bytes dealt for one row's products with a layer's matrices: a spare that may serve any layer needs all layers'."""


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
