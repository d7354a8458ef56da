"""A retry helps: all that a segment truncates is masked afresh in each attempt, for every policy and model family."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.prefill import prompt_segments
from parties.decoding.program import Program, run
from parties.decoding.steps import token_segments
from parties.decoding.workload import Prefill
from parties.engines.fss.arithmetic import gates, ring
from parties.engines.fss.arithmetic.gates import StaleMask
from parties.engines.fss.arithmetic.matrices import ServerMatrix, is_matrix
from parties.engines.fss.arithmetic.opening import dealer_openings
from parties.engines.fss.arithmetic.values import Masked, cat
from parties.engines.fss.computation import Computation
from parties.engines.fss.cost.simulation import Simulation, share
from parties.engines.fss.dealing.plan import epoch
from parties.engines.fss.functions.norm import to_norm
from parties.engines.fss.randomness.dcf import PERMUTATION_KEY_BYTES, Permutation
from parties.engines.fss.randomness.dealer_source import DealerSource
from parties.engines.fss.randomness.frames import FrameWriter
from parties.engines.fss.randomness.source import DEALER, Source
from parties.engines.keystream import Keystream
from parties.metering.meter import StageMeter
from parties.models.spec import ModelSpec
from parties.policies.base import Policy
from tests.helpers.policy_cases import VARIANTS, case, parameters, plain, tokens
from tests.helpers.tiny import SPECS

PROMPT, CHUNK, STEPS = 17, 7, 4
"""Clusters of four then end in one of a single token, whose bounds are the token's own key."""

Segment = Callable[[], Program[Any]]


def segments(spec: ModelSpec, policy: Policy, prefill: str) -> tuple[DealerSource, Cache, list[Segment]]:
    """The dealer's side of a cell."""
    first, second = (Keystream(bytes([i]) * 32) for i in (1, 2))
    source = DealerSource(StageMeter(), first, second, FrameWriter(lambda _: None), FrameWriter(lambda _: None))
    source.permutation = Permutation(bytes(PERMUTATION_KEY_BYTES))
    engine, shapes = Computation(source), {name: tuple(w.shape) for name, w in parameters(policy, spec).items()}
    for name, shape in shapes.items():
        if is_matrix(name, shape):
            engine.matrices[name] = ServerMatrix(source.server.words((shape[1], shape[0])))
    source.begin(epoch(0, 1))
    run(engine.install(shapes, None), dealer_openings)
    decoder = Decoder(engine, spec, policy)
    if prefill == "mpc":
        cache = Cache.empty(spec.n_layers)
        before: list[Segment] = list(prompt_segments(decoder, cache, None, Prefill(PROMPT, CHUNK)))
    else:
        clear, known = plain(policy, spec), Cache.empty(spec.n_layers)
        run(clear.prefill(run(clear.embed(tokens(spec, PROMPT)[0], PROMPT, 0)), known))
        named = {name: engine.adopt(source.placeholder(value.shape)) for name, value in known.values().items()}
        cache = Cache.from_values(spec.n_layers, PROMPT, named)
        before = engine.mask_cache(cache)
    return source, cache, [*before, *(token_segments(decoder, cache, None, "private") * STEPS)]


@pytest.fixture
def truncated(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Tensor]]:
    """Stage and masks of everything that the dealer truncates."""
    honest, seen = gates.truncate, []

    def truncate(x: Masked, scale: int = ring.FRACTION_BITS) -> Masked:
        if x.scale > scale and x.source.rank == DEALER:
            seen.append((x.source.meter.current, x.mask.clone()))
        return honest(x, scale)

    for module in [module for name, module in sys.modules.items() if name.startswith("parties.engines.fss")]:
        if vars(module).get("truncate") is honest:
            monkeypatch.setattr(module, "truncate", truncate)
    return seen


@pytest.mark.parametrize("prefill", ["shared", "mpc"])
@pytest.mark.parametrize("family", SPECS)
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.slow
def test_no_truncation_sees_the_same_mask_in_a_second_attempt(
    name: str, family: str, prefill: str, truncated: list[tuple[str, Tensor]]
) -> None:
    source, cache, remaining = segments(replace(SPECS[family], n_layers=2), case(name), prefill)
    cut = 0
    for index, segment in enumerate(remaining, 2):
        restore, attempts = cache.snapshot(), []
        for attempt in range(2):
            restore()
            source.begin(epoch(2 * index + attempt, index))
            truncated.clear()
            run(segment(), dealer_openings)
            attempts.append(list(truncated))
        for (stage, first), (_, second) in zip(*attempts, strict=True):
            assert not ((first == second) & (first != 0)).any(), f"segment {index}: {stage} truncates {first.shape}"
            cut += first.numel()
    assert cut > 1000


@dataclass
class Two:
    """A value that was opened in an earlier segment and one that is new, both [4, 6] with 32 fraction bits."""

    old: Masked
    new: Masked

    def constant(self, columns: int) -> Masked:
        return Computation(self.new.source).constant(torch.ones(4, columns))


def in_two_segments(second: Callable[[Two], Any]) -> None:
    """Opens a value in each of two segments, at all three, and runs `second` in the later one."""
    simulation, kept = Simulation(), {}
    numbers = torch.ones(4, 6, dtype=torch.float64)

    def opened(source: Source) -> Program[Masked]:
        return (yield from gates.open_(share(source, numbers, 8.0, 32)))

    def before(source: Source) -> Program[None]:
        kept[source.rank] = yield from opened(source)

    def after(source: Source) -> Program[None]:
        second(Two(kept[source.rank], (yield from opened(source))))

    simulation.run(before)
    simulation.run(after)


STALE: dict[str, Callable[[Two], Any]] = {
    "itself": lambda two: gates.truncate(two.old),
    "part of it": lambda two: gates.truncate(two.old.transpose(0, 1)[2:].sum(1) * 0.3 - two.old[0, 0]),
    "beside a new one": lambda two: gates.truncate(cat([two.new, two.old], 0)),
    "plus a constant": lambda two: gates.truncate(two.old + two.constant(6)),
    "plus a new one in places": lambda two: gates.truncate(two.old + cat([two.new[:, :3], two.constant(3)], 1)),
    "in a norm": lambda two: to_norm(two.old.rescaled(16), centre=True),
}
FRESH: dict[str, Callable[[Two], Any]] = {
    "the new one": lambda two: gates.truncate(two.new),
    "their difference": lambda two: gates.truncate(two.old - two.new),
    "the new one beside nothing": lambda two: gates.truncate(cat([two.old[:0], two.new], 0)),
    "nothing": lambda two: gates.truncate(two.old[:0]),
    "an old one that has no bits to drop": lambda two: gates.truncate(two.old * 0.5, 33),
}


@pytest.mark.parametrize("rank", range(3), ids=["client", "server", "dealer"])
@pytest.mark.parametrize("how", STALE)
def test_truncating_values_that_a_retry_does_not_mask_anew_is_refused_at_every_party(how: str, rank: int) -> None:
    def second(two: Two) -> None:
        two.new.source.declared = lambda _: None  # a single party declares bounds here and has nothing to compare
        if two.new.source.rank == rank:
            with pytest.raises(StaleMask, match=r"opened in epoch [01] are truncated in epoch 2"):
                STALE[how](two)

    in_two_segments(second)


@pytest.mark.parametrize("how", FRESH)
def test_values_that_a_retry_masks_anew_are_truncated(how: str) -> None:
    in_two_segments(FRESH[how])
