"""Prefill inside the computation equals the plain engine for all chunks, in one process and between processes."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.prefill import prompt_segments
from parties.decoding.program import Program, run
from parties.decoding.steps import decode_in_segments
from parties.decoding.workload import Prefill
from parties.engines.fss.arithmetic.gates import TruncationFailure
from parties.engines.fss.computation import Computation
from parties.engines.fss.cost.simulation import Simulation, value_of
from parties.engines.fss.dealing.dealer import Dealer
from parties.engines.fss.engine import FssEngine
from parties.engines.fss.randomness.source import CLIENT, Source
from parties.metering.meter import StageMeter
from parties.models.folding import folded_shapes
from parties.models.spec import ModelSpec
from parties.policies import Full, MPCache
from parties.policies.base import Policy
from parties.transport.mesh import Mesh
from tests.helpers.tiny import FAMILIES, folded, plain_decoder, random_tokens
from tests.helpers.together import together
from tests.parties.engines.fss.arithmetic.test_embedding import table_of
from tests.parties.engines.fss.test_decoding import fail_truncation

BOUND = 0.06
STEPS = 2
POLICIES: dict[str, Policy] = {
    "full": Full(),
    "mpcache": MPCache(static_keep=0.6, select=0.3, fine_size=4, coarse_size=8),
}


def simulated(
    spec: ModelSpec, policy: Policy, sizes: Prefill, prompt: list[int]
) -> tuple[dict[str, Tensor], Simulation]:
    """The cache after the prompt, in the clear, and the simulation that made it."""
    weights, shapes = folded(spec), folded_shapes(spec)

    def program(source: Source) -> Program[dict[str, Any]]:
        engine = Computation(source)
        engine.matrices = {name: table_of(source, weights[name]) for name, shape in shapes.items() if len(shape) == 2}
        yield from engine.install(shapes, weights if type(source).__name__ == "ServerSource" else None)
        cache = Cache.empty(spec.n_layers)
        own = prompt if source.rank == CLIENT else None
        for segment in prompt_segments(Decoder(engine, spec, policy), cache, own, sizes):
            yield from segment()
        return cache.values()

    for seed in range(20):
        simulation = Simulation(seed)
        try:
            first, second = simulation.run(program)
        except TruncationFailure:
            continue
        return {name: value_of(first[name], second[name]) for name in first}, simulation
    raise AssertionError("truncation cannot fail twenty times in a row")


@settings(max_examples=6, deadline=None)
@given(st.sampled_from(sorted(FAMILIES)), st.data())
def test_the_cache_is_that_of_the_plain_engine_for_all_chunks(family: str, data: st.DataObject) -> None:
    spec, tokens = FAMILIES[family], data.draw(st.integers(1, 9), label="tokens")
    sizes = Prefill(tokens, data.draw(st.integers(1, tokens), label="chunk"))
    prompt, expected = random_tokens(spec, tokens, seed=2), Cache.empty(spec.n_layers)
    decoder = plain_decoder(spec, Full())
    run(decoder.prefill(run(decoder.embed(prompt, tokens, 0)), expected))
    found, _ = simulated(spec, Full(), sizes, prompt)
    for name, value in expected.values().items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0.02)


def test_messages_do_not_depend_on_the_prompt() -> None:
    spec, traces = FAMILIES["llama"], []
    for prompt in ([3] * 9, random_tokens(spec, 9, seed=8)):
        _, simulation = simulated(spec, POLICIES["mpcache"], Prefill(9, 4), prompt)
        traces.append([[tuple(part.shape) for part in opened] for opened in simulation.opened])
    assert traces[0] == traces[1]


def prompted(
    role: str, mesh: Mesh, meter: StageMeter, family: str, policy: Policy, sizes: Prefill, prompt: list[int], at: int
) -> Any:
    """Prefills inside and decodes; truncation `at` fails once, if that is not 0."""
    if role == "dealer":
        return Dealer(mesh["client"], mesh["server"], meter).serve()
    if at:
        fail_truncation(at)
    spec, own = FAMILIES[family], prompt if role == "client" else None
    engine = FssEngine(role, mesh, meter)
    run(engine.install(folded_shapes(spec), folded(spec) if role == "server" else None), engine.exchange)
    decoder = Decoder(engine, spec, policy)
    empty = Cache.empty(spec.n_layers)
    cache = engine.prepare(decoder.workload(empty, STEPS, prefill=[sizes]), empty)
    for segment in prompt_segments(decoder, cache, None if own is None else own[:-1], sizes):
        engine.run_segment(segment, cache)
    engine.prefilled()
    logits, tokens, held = [], [], None if own is None else own[-1:]
    for _ in range(STEPS):
        out, found = decode_in_segments(decoder, cache, held, "private")
        logits.append(engine.export(out))
        tokens.append(found and found[0])
        held = found
    engine.finish()
    return logits, tokens, engine.repeats, cache.layers[0].tokens


@pytest.mark.parametrize(
    ("family", "policy", "tokens", "chunk", "at"),
    [
        ("llama", "full", 21, 8, 0),
        ("gpt2", "full", 21, 21, 0),
        ("gemma3_text", "full", 21, 8, 0),
        ("llama", "mpcache", 21, 5, 0),
        ("gpt2", "mpcache", 21, 8, 0),
        ("llama", "full", 1, 1, 0),
        ("llama", "mpcache", 13, 4, 3),  # a failure while the first chunk runs
        ("llama", "mpcache", 13, 4, 60),  # and after several chunks
        ("llama", "full", 150, 150, 3),  # while the dealer has more to send than sockets hold
    ],
)
@pytest.mark.slow
def test_a_prompt_between_processes_is_that_of_the_plain_engine(
    family: str, policy: str, tokens: int, chunk: int, at: int
) -> None:
    spec, prompt = FAMILIES[family], random_tokens(FAMILIES[family], tokens + 1, seed=5)
    results = together(prompted, family, POLICIES[policy], Prefill(tokens, chunk), prompt, at)
    (mine, found, repeats, kept), (theirs, hidden, others, _) = results["client"], results["server"]
    decoder, cache = plain_decoder(spec, POLICIES[policy]), Cache.empty(spec.n_layers)
    run(decoder.prefill(run(decoder.embed(prompt[:-1], tokens, 0)), cache))
    token = prompt[-1]
    for step in range(STEPS):
        expected = run(decoder.step(run(decoder.embed([token], 1, cache.position)), cache))
        private = (mine[step] + theirs[step]).double() / 2.0**16
        assert (private - expected).abs().max() < BOUND
        token = found[step]
        assert expected.max() - expected[0, token] < 2 * BOUND, "the choice is greedy up to the error of the logits"
    assert hidden == [None] * STEPS, "the server must not learn the tokens"
    assert kept == cache.layers[0].tokens
    assert repeats == others >= bool(at)
