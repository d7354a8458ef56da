"""Chunks of prompts that are recorded in one layer and replayed in the others, in real processes."""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.prefill import prompt_segments
from parties.decoding.program import Program, run
from parties.decoding.steps import decode_in_segments, name_of
from parties.decoding.workload import Prefill
from parties.engines.base import Engine
from parties.engines.fss.arithmetic.gates import TruncationFailure
from parties.engines.fss.dealing.dealer import Dealer
from parties.engines.fss.engine import FssEngine
from parties.engines.fss.randomness import retries
from parties.engines.fss.replay.parts import Parts
from parties.engines.fss.replay.recordings import FIRST, NAMELESS
from parties.metering.meter import StageMeter
from parties.models.folding import folded_shapes
from parties.models.spec import ModelSpec
from parties.policies import Full, MPCache, make
from parties.policies.base import Policy
from parties.transport.mesh import Mesh
from tests.helpers.tiny import FAMILIES, folded, plain_decoder, random_tokens
from tests.helpers.together import together

BOTH = ("client", "server")
SIZES = Prefill(21, 8)
CHUNKS = 3
SPECS = {
    "llama": replace(FAMILIES["llama"], n_layers=5),
    "gpt2": replace(FAMILIES["gpt2"], n_layers=5),
    "gemma3_text": replace(FAMILIES["gemma3_text"], n_layers=7, windows=(6, 0, 6, 0, 6, 0, 6)),
}
POLICIES: dict[str, Policy] = {
    "full": Full(),
    "mpcache": MPCache(static_keep=0.6, select=0.3, fine_size=4, coarse_size=8),
    "h2o": make("h2o", compression_ratio=0.5),
    "snapkv": make("snapkv", compression_ratio=0.5),
    "infllm": make("infllm"),
}


@dataclass(frozen=True)
class Reads(Policy):
    """Reads, after each chunk, what the first layer of the cache holds."""

    def after_chunk(self, engine: Engine, cache: Cache, layer: int, position: int) -> Program[None]:
        first, here = cache.layers[0].k, cache.layers[layer]
        here.state["read"] = engine.cat([first[:, -1:]], dim=1)
        return
        yield

    def chunk_kind(self, layer: int) -> int:
        return 0


def prompted(
    role: str, mesh: Mesh, meter: StageMeter, who: tuple[str, ...], spec: ModelSpec, policy: Policy, prompt: list[int],
    fail_at: int = 0, on_gpu: tuple[str, ...] = (),
) -> Any:  # fmt: skip
    """Prefills and decodes a token; those in `who` record chunks, and replay `fail_at` of each fails at its end."""
    if role == "dealer":
        return Dealer(mesh["client"], mesh["server"], meter).serve(policy=policy.name)
    retries.SIGNIFICANCE = 0.0
    fail(fail_at if role in who else 0)
    engine = FssEngine(role, mesh, meter, "cuda" if role in on_gpu else "cpu")
    run(engine.install(folded_shapes(spec), folded(spec) if role == "server" else None), engine.exchange)
    decoder, own = Decoder(engine, spec, policy), prompt if role == "client" else None
    empty = Cache.empty(spec.n_layers)
    cache = engine.prepare(decoder.workload(empty, 4, prefill=[SIZES]), empty)
    engine.replays_chunks = role in who
    for segment in prompt_segments(decoder, cache, None if own is None else own[:-1], SIZES):
        engine.run_segment(segment, cache, name_of(segment))
    counts = engine.replayed_segments, dict(engine.interpreted_segments), engine.repeats
    engine.prefilled()
    held = {name: engine.export(value) for name, value in cache.values().items()}
    token = None if own is None else own[-1:]
    logits, found = decode_in_segments(decoder, cache, token, "private")
    exported = engine.export(logits)
    engine.finish()
    return counts, held, exported, found


def fail(number: int) -> None:
    """Lets the replay of this number fail in its last check, once."""
    honest, count = Parts.run, 0

    def failing(*given: Any) -> None:
        nonlocal count
        honest(*given)
        count += 1
        if count == number:
            raise TruncationFailure("a truncation that a test chose")

    setattr(Parts, "run", failing)  # noqa: B010


def checked(results: dict[str, Any], spec: ModelSpec, policy: Policy, prompt: list[int]) -> None:
    """The cache after the prompt, and the token after it, are those of the plain engine."""
    decoder, cache = plain_decoder(spec, policy), Cache.empty(spec.n_layers)
    run(decoder.prefill(run(decoder.embed(prompt[:-1], SIZES.tokens, 0)), cache))
    client, server = (results[role] for role in BOTH)
    for name, value in cache.values().items():
        held = (client[1][name] + server[1][name]).double() / 2.0**16
        assert (held - value).abs().max() < 0.06, name
    expected = run(decoder.step(run(decoder.embed(prompt[-1:], 1, cache.position)), cache))
    logits = (client[2] + server[2]).double() / 2.0**16
    bound = 0.02 * spec.n_layers  # each layer adds to the error
    assert (logits - expected).abs().max() < bound
    assert expected.max() - expected[0, client[3][0]] < 2 * bound


def decoded(who: tuple[str, ...], family: str, policy: Policy, fail_at: int = 0, on_gpu: tuple[str, ...] = ()) -> Any:
    spec = SPECS[family]
    prompt = random_tokens(spec, SIZES.tokens + 1, seed=5)
    results = together(prompted, who, spec, policy, prompt, fail_at, on_gpu)
    checked(results, spec, policy, prompt)
    assert results["client"][0][2] == results["server"][0][2] >= bool(fail_at)
    return {role: results[role][0] for role in BOTH}


@pytest.mark.parametrize(
    ("who", "family", "policy"),
    [
        (("client",), "llama", "full"),
        (("server",), "llama", "mpcache"),
        (BOTH, "gpt2", "full"),
        pytest.param(("client",), "gpt2", "mpcache", marks=pytest.mark.slow),
        pytest.param(("client",), "llama", "h2o", marks=pytest.mark.slow),
        pytest.param(("server",), "llama", "snapkv", marks=pytest.mark.slow),
    ],
)
def test_a_chunk_is_recorded_in_the_second_layer_and_in_step_with_an_interpreted_one(
    who: tuple[str, ...], family: str, policy: str
) -> None:
    counts = decoded(who, family, POLICIES[policy])
    for role in who:
        replayed, interpreted, repeats = counts[role]
        if not repeats:  # by chance
            inner = SPECS[family].n_layers - 2
            assert replayed == CHUNKS * inner
            assert interpreted == {FIRST: CHUNKS, NAMELESS: CHUNKS + CHUNKS + SPECS[family].n_layers}
    for role in set(BOTH) - set(who):
        assert counts[role][0] == 0


@pytest.mark.gpu
@pytest.mark.parametrize("on_gpu", [("client",), ("server",), BOTH])
@pytest.mark.parametrize(("family", "policy"), [("llama", "full"), ("gpt2", "mpcache"), ("llama", "snapkv")])
def test_graphs_of_chunks_are_in_step_with_interpreted_and_recorded_parties(
    on_gpu: tuple[str, ...], family: str, policy: str
) -> None:
    counts = decoded(on_gpu, family, POLICIES[policy], on_gpu=on_gpu)
    for role in on_gpu:
        assert counts[role][0] >= CHUNKS * (SPECS[family].n_layers - 2)


@pytest.mark.gpu
def test_graphs_of_a_chunk_that_fails_are_replayed_again() -> None:
    decoded(BOTH, "llama", POLICIES["full"], 5, BOTH)


def test_layers_of_each_window_have_recordings_of_their_own() -> None:
    counts = decoded(("client",), "gemma3_text", POLICIES["full"])
    replayed, interpreted, repeats = counts["client"]
    if not repeats:
        assert interpreted[FIRST] == 2 * CHUNKS
        assert replayed == CHUNKS * (SPECS["gemma3_text"].n_layers - 1 - 2)


@pytest.mark.parametrize(("who", "fail_at"), [(BOTH, 1), (BOTH, 5)])
def test_a_chunk_that_fails_is_replayed_again(who: tuple[str, ...], fail_at: int) -> None:
    """Its own rows, and what the layer held before, are still there."""
    decoded(who, "llama", POLICIES["full"], fail_at)


def test_a_policy_with_a_hook_for_chunks_is_interpreted() -> None:
    counts = decoded(BOTH, "llama", POLICIES["infllm"])
    assert counts["client"][0] == 0
    assert set(counts["client"][1]) == {NAMELESS}


def test_a_chunk_that_reads_another_layer_is_interpreted() -> None:
    counts = decoded(("client",), "llama", Reads())
    replayed, interpreted, repeats = counts["client"]
    (why,) = interpreted.keys() - {FIRST, NAMELESS}
    assert "reads another layer of the cache" in why
    assert replayed == 0
    assert repeats or interpreted[why] == 3 * CHUNKS, "all layers but the first and the last"
