"""Whole models in real processes: client, server and dealer over loopback, against the plain engine."""

import re
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import run
from parties.decoding.steps import decode_in_segments, token_segments
from parties.engines.fss.arithmetic import gates
from parties.engines.fss.dealing.dealer import Dealer
from parties.engines.fss.dealing.plan import ATTEMPT_BITS
from parties.engines.fss.engine import MOST_ATTEMPTS, FssEngine, RetriesExhausted
from parties.engines.fss.randomness import retries
from parties.engines.fss.randomness.retries import RetriesImprobable
from parties.errors import PeerLost
from parties.metering.meter import StageMeter
from parties.models.folding import folded_shapes
from parties.options import DEFAULTS, RunOptions
from parties.policies import Full, MPCache
from parties.policies.base import Policy
from parties.transport.mesh import Mesh
from tests.helpers.tiny import FAMILIES, folded, plain_decoder, random_tokens
from tests.helpers.together import together

SCALE = 2.0**16
STEPS = 3
POLICIES: dict[str, Policy] = {
    "full": Full(),
    "mpcache": MPCache(static_keep=0.6, select=0.3, fine_size=4, coarse_size=8),
    "mpcache_ahead": MPCache(static_keep=1, select=0.3, fine_size=1, coarse_size=1, ahead=True),  # ranks by pivots
    "mpcache_tiny_select": MPCache(static_keep=0.2, select=0.0, share_from=0, share_layers=1),
}


def decode(
    role: str,
    mesh: Mesh,
    meter: StageMeter,
    family: str,
    policy: Policy,
    named: dict[str, Tensor],
    token: int,
    device: str = "cpu",
    options: RunOptions = DEFAULTS,
) -> Any:
    """Decodes from a prefilled cache that the test has split."""
    if role == "dealer":
        return Dealer(mesh["client"], mesh["server"], meter).serve()
    spec, owns = FAMILIES[family], role == "client"
    engine = FssEngine(role, mesh, meter, device)
    run(engine.install(folded_shapes(spec), folded(spec) if role == "server" else None), engine.exchange)
    position = named.pop("position").item()
    cache = Cache.from_values(spec.n_layers, int(position), {name: engine.adopt(t) for name, t in named.items()})
    decoder = Decoder(engine, spec, policy)
    cache = engine.prepare(decoder.workload(cache, STEPS, options), cache)
    own = [token] if owns else None
    engine.rehearse(token_segments(decoder, cache, own, "private"), cache)
    meter.reset()
    logits, tokens = [], []
    for _ in range(STEPS):
        out, found = decode_in_segments(decoder, cache, own, "private")
        logits.append(engine.export(out))
        tokens.append(found and found[0])
        own = found
    engine.finish()
    return logits, tokens, meter.snapshot(), engine.repeats


def fail_truncation(at: int, *, ever_after: bool = False, by_chance: bool = True) -> None:
    """Makes a given truncation fail in this process, as it would at both parties.

    Args:
        at: The truncation, counted from 1.
        ever_after: At all later ones, too.
        by_chance: Whether the party accepts it as chance; with `ever_after`, bounds are declared so wide that each
            opened number is in the zone with probability 1/2.
    """
    honest, calls = gates.truncate, 0
    if by_chance:
        retries.SIGNIFICANCE = 0.0

    def truncate(x: Any, scale: int = 16) -> Any:
        nonlocal calls
        if x.scale <= scale:
            return honest(x, scale)
        calls += 1
        if ever_after and by_chance and calls >= at:
            x = x.bounded(2.0 ** (62 - x.scale))
        elif calls == at or (ever_after and calls > at):
            raise gates.TruncationFailure("a truncation that a test chose")
        return honest(x, scale)

    gates.truncate = truncate


def with_failure(role: str, mesh: Mesh, meter: StageMeter, at: int, policy: Policy, parts: Any, token: int) -> Any:
    if role != "dealer":
        fail_truncation(at)
    return decode(role, mesh, meter, "llama", policy, parts.get(role, {}), token)


def party(role: str, mesh: Mesh, meter: StageMeter, family: str, policy: Policy, parts: Any, token: int) -> Any:
    return decode(role, mesh, meter, family, policy, parts.get(role, {}), token)


def client_on_gpu(role: str, mesh: Mesh, meter: StageMeter, policy: Policy, parts: Any, token: int) -> Any:
    device = "cuda" if role == "client" else "cpu"
    return decode(role, mesh, meter, "llama", policy, parts.get(role, {}), token, device)


@pytest.mark.gpu
@pytest.mark.parametrize("policy", POLICIES)
def test_a_client_on_a_gpu_and_a_server_on_a_cpu_decode_like_the_plain_engine(policy: str) -> None:
    decoder, cache, parts, token = prefilled("llama", POLICIES[policy])
    check(together(client_on_gpu, POLICIES[policy], parts, token), decoder, cache, token)


@pytest.mark.parametrize(
    ("family", "policy"),
    [*((family, policy) for family in ("llama", "gpt2") for policy in POLICIES), ("gemma3_text", "full")],
)
def test_a_whole_model_decodes_like_the_plain_engine(family: str, policy: str) -> None:
    decoder, cache, parts, token = prefilled(family, POLICIES[policy])
    results = together(party, family, POLICIES[policy], parts, token)
    check(results, decoder, cache, token)
    (_, _, stages, repeats), (_, hidden, other_stages, others) = results["client"], results["server"]
    assert hidden == [None] * STEPS, "the server must not learn the tokens"
    assert repeats == others
    online = [sum(s.rounds for s in side if s.phase == "online") for side in (stages, other_stages)]
    assert online[0] == online[1]


@pytest.mark.parametrize("at", [1, 70])
def test_a_token_with_a_truncation_failure_is_decoded_again_with_fresh_randomness(at: int) -> None:
    policy = POLICIES["mpcache"]
    decoder, cache, parts, token = prefilled("llama", policy)
    results = together(with_failure, at, policy, parts, token)
    check(results, decoder, cache, token)
    assert results["client"][3] == results["server"][3] >= 1


def stored(role: str, mesh: Mesh, meter: StageMeter, policy: Policy, parts: Any, token: int) -> Any:
    """Decodes with randomness on disk and a failure in the last token; the dealer returns the epochs that it began."""
    if role == "dealer":
        dealer, begun = Dealer(mesh["client"], mesh["server"], meter), list[int]()
        begin = dealer._source.begin

        def beginning(epoch: int) -> None:
            begun.append(epoch)
            begin(epoch)

        dealer._source.begin = beginning  # type: ignore[method-assign]
        dealer.serve()
        return begun
    attempt, positions = FssEngine._attempt, list[int]()

    def attempted(self: FssEngine, program: Any, caches: Any, name: Any) -> Any:
        positions.append(caches.position)
        if positions.count(positions[0] + STEPS - 1) == 2:
            positions.append(caches.position)
            raise gates.TruncationFailure("a truncation that a test chose")
        return attempt(self, program, caches, name)

    FssEngine._attempt = attempted  # type: ignore[method-assign]
    retries.SIGNIFICANCE = 0.0
    options = RunOptions.model_validate({"offline": "stored"})
    return decode(role, mesh, meter, "llama", policy, parts[role], token, options=options)


def test_a_retry_with_stored_randomness_deals_again_from_a_token_near_it_and_not_from_the_first() -> None:
    policy = POLICIES["full"]
    decoder, cache, parts, token = prefilled("llama", policy)
    results = together(stored, policy, parts, token)
    begun = [(epoch >> ATTEMPT_BITS, epoch % (1 << ATTEMPT_BITS)) for epoch in results.pop("dealer")]
    check(results | {"dealer": None}, decoder, cache, token)
    starts = [place for place, (one, other) in enumerate(pairwise(begun), 1) if other[1] != one[1] + 1]
    again = [begun[start:end] for start, end in pairwise([*starts, len(begun)])]
    token = FAMILIES["llama"].n_layers + 2
    assert token in map(len, again), "the segments of one token, after the failure in the last one"
    for run_again in again:  # of the attempts before: what comes ahead of the segment that failed
        assert sum(attempt < run_again[-1][0] for attempt, _ in run_again) < token


def failing(role: str, mesh: Mesh, meter: StageMeter, policy: Policy, parts: Any, token: int) -> Any:
    if role == "dealer":
        with pytest.raises(PeerLost):
            Dealer(mesh["client"], mesh["server"], meter).serve()
        return None
    fail_truncation(10, ever_after=True)
    with pytest.raises(RetriesExhausted) as caught:
        decode(role, mesh, meter, "llama", policy, parts[role], token)
    mesh["server" if role == "client" else "client"].exchange(b"")  # the dealer ends with the first party that leaves
    return str(caught.value)


def test_a_segment_that_fails_in_every_attempt_ends_the_cell_with_a_reason() -> None:
    _, _, parts, token = prefilled("llama", POLICIES["full"])
    results = together(failing, POLICIES["full"], parts, token)
    for role in ("client", "server"):
        assert f"failed in each of {MOST_ATTEMPTS} attempts" in results[role]
        assert re.search(r"in stage [a-z_]+, where [\d,]+ numbers below 2\^62 are truncated", results[role])
        assert "in one segment" in results[role]


def provoked(role: str, mesh: Mesh, meter: StageMeter, policy: Policy, parts: Any, token: int) -> Any:
    """Causes more truncation failures than chance explains, as an active dealer could."""
    if role == "dealer":
        dealer, requests = Dealer(mesh["client"], mesh["server"], meter), []
        honest = dealer._answer

        def answer(role: str, request: dict[str, Any]) -> None:
            requests.append(request["do"])
            honest(role, request)

        dealer._answer = answer  # type: ignore[method-assign]
        with pytest.raises(PeerLost):
            dealer.serve()
        return requests.count("again")
    fail_truncation(10, ever_after=True, by_chance=False)
    with pytest.raises(RetriesImprobable) as caught:
        decode(role, mesh, meter, "llama", policy, parts[role], token)
    mesh["server" if role == "client" else "client"].exchange(b"")
    return str(caught.value)


def test_more_retries_than_chance_explains_end_the_cell_before_the_dealer_is_notified() -> None:
    _, _, parts, token = prefilled("llama", POLICIES["full"])
    results = together(provoked, POLICIES["full"], parts, token)
    assert results["client"] == results["server"]
    found = re.match(r"truncation failure (\d) of (one segment|the session), in stage", results["client"])
    assert found, results
    assert results["dealer"] == int(found[1]) - 1 <= 2


def prefilled(family: str, policy: Policy, seed: int = 29) -> tuple[Decoder, Cache, dict[str, dict[str, Tensor]], int]:
    """Returns a plain decoder with a cache, the cache in two shares, and the next token.

    With the default seed no selection of the policies above is a near tie.
    """
    spec = FAMILIES[family]
    prompt = random_tokens(spec, 40, seed=seed)
    decoder, cache = plain_decoder(spec, policy), Cache.empty(spec.n_layers)
    run(decoder.prefill(run(decoder.embed(prompt[:-1], len(prompt) - 1, 0)), cache))
    split = {name: FssEngine.split(value) for name, value in cache.values().items()}
    position = torch.tensor(cache.position)
    parts = {
        role: {name: halves[side] for name, halves in split.items()} | {"position": position}
        for side, role in enumerate(("client", "server"))
    }
    return decoder, cache, parts, prompt[-1]


def check(results: Any, decoder: Decoder, cache: Cache, token: int) -> None:
    """Logits and tokens are those of the plain decoder."""
    (mine, tokens, _, _), (theirs, _, _, _) = results["client"], results["server"]
    for step in range(STEPS):
        expected = run(decoder.step(run(decoder.embed([token], 1, cache.position)), cache))
        private = (mine[step] + theirs[step]).double() / SCALE
        assert (private - expected).abs().max() < 0.06
        (token,) = run(decoder.engine.argmax(expected))
        assert tokens[step] == token
