"""Caches of thousands of tokens: every policy decodes like the plain engine with long rows of scores."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.prefill import prompt_segments
from parties.decoding.program import Program, run
from parties.decoding.workload import Prefill
from parties.engines.fss.arithmetic.gates import TruncationFailure
from parties.engines.fss.bounds import LINEAR
from parties.engines.fss.computation import Computation
from parties.engines.fss.cost.simulation import Simulation, share, value_of
from parties.engines.fss.randomness.source import CLIENT, SERVER, Source
from parties.policies import POLICIES, make
from parties.policies.base import Policy
from tests.helpers.policy_cases import parameters, plain
from tests.helpers.tiny import LLAMA, random_tokens
from tests.parties.engines.fss.arithmetic.test_embedding import table_of

SPEC = replace(
    LLAMA, n_layers=1, hidden=16, n_heads=2, n_kv_heads=1, head_dim=8, intermediate=16, vocab=32, max_positions=16_384
)
CHUNK = 512  # of the plain engine's prompt: all rows at once would take a gigabyte
STEPS = 3
VARIANTS: dict[str, Policy] = {
    **{name: make(name) for name in POLICIES if "dense_layers" not in {f.name for f in fields(POLICIES[name])}},
    **{name: make(name, dense_layers=0) for name in ("quest", "mpcache+")},
    "mpcache, all kept": make("mpcache", static_keep=1.0, select=0.1),
}
# Seeds of the text after the prompt. With the others' seed, clusters at the edge of these selections are so near to the
# 2^-9 by which similarities are ranked that a lower index may win. With these, the edges differ by more than 2^-8.
SEEDS = {("mpcache, all kept", 8192): 11, ("mpcache", 8192): 14}


def simulated(policy: Policy, cache: Cache, text: list[int]) -> Tensor:
    """Logits of each step after a cache that is given in the clear."""
    installed, named = parameters(policy, SPEC), cache.values()
    shapes = {name: tuple(w.shape) for name, w in installed.items()}

    def program(source: Source) -> Program[list[Any]]:
        engine, logits = Computation(source), []
        engine.matrices = {name: table_of(source, w) for name, w in installed.items() if w.dim() == 2}
        yield from engine.install(shapes, installed if source.rank == SERVER else None)
        shared = {name: share(source, value, LINEAR["qkv"].limit) for name, value in named.items()}
        held = Cache.from_values(SPEC.n_layers, cache.position, shared)
        for segment in engine.mask_cache(held):
            yield from segment()
        decoder = Decoder(engine, SPEC, policy)
        for token in text:
            x = yield from decoder.embed([token] if source.rank == CLIENT else None, 1, held.position)
            logits.append((yield from decoder.step(x, held)))
        return logits

    for seed in range(20):
        try:
            first, second = Simulation(seed).run(program)
        except TruncationFailure:
            continue
        return torch.cat([value_of(a, b) for a, b in zip(first, second, strict=True)])
    raise AssertionError("a truncation failed in each of twenty runs")


@pytest.mark.parametrize("tokens", [5000, 8192])
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.slow
def test_long_caches_decode_like_the_plain_engine(name: str, tokens: int) -> None:
    policy, text = VARIANTS[name], random_tokens(SPEC, STEPS, seed=SEEDS.get((name, tokens), 7))
    decoder, cache = plain(policy, SPEC), Cache.empty(SPEC.n_layers)
    sizes = Prefill(tokens, policy.chunk or CHUNK)
    for segment in prompt_segments(decoder, cache, random_tokens(SPEC, tokens, seed=3), sizes):
        run(segment())
    found = simulated(policy, cache, text)
    expected = torch.cat([run(decoder.step(run(decoder.embed([t], 1, cache.position)), cache)) for t in text])
    assert (found - expected).abs().max() < 0.06
