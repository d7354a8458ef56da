"""Every policy on every engine, prefill and decoding: the plain engine's tokens, by messages that reveal nothing."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import Openings, Program, run
from parties.engines.fss.arithmetic.gates import TruncationFailure
from parties.engines.fss.computation import Computation
from parties.engines.fss.cost.simulation import Simulation, value_of
from parties.engines.fss.randomness.source import CLIENT, SERVER, Source
from parties.engines.fss.topk import selection
from parties.metering.meter import StageMeter
from parties.models.spec import ModelSpec
from parties.policies import POLICIES
from parties.transport.mesh import Mesh
from tests.helpers.policy_cases import QUANTISED, SPEC, VARIANTS, Text, calm, case, decode, parameters, plain, tokens
from tests.helpers.together import together
from tests.parties.engines.fss.arithmetic.test_embedding import table_of

pytestmark = pytest.mark.slow

ON_CRYPTEN = [*POLICIES, "h2o by step", "attention_gate by threshold", "mpcache ahead", "quest ahead"]
SMALLER = replace(SPEC, n_layers=1)
ROUNDING = 0.06
CRYPTEN = 0.5


def decoding(name: str, prompt: list[int], text: list[int]) -> Callable[[Source], Program[tuple[list[Any], list[int]]]]:
    """Prefill and decoding at a source: logits of each step, and cached tokens in the end."""
    policy = case(name)
    installed = parameters(policy)
    shapes = {name: tuple(w.shape) for name, w in installed.items()}

    def program(source: Source) -> Program[tuple[list[Any], list[int]]]:
        engine, cache = Computation(source), Cache.empty(SPEC.n_layers)
        engine.matrices = {name: table_of(source, w) for name, w in installed.items() if w.dim() == 2}
        yield from engine.install(shapes, installed if source.rank == SERVER else None)
        decoder, logits = Decoder(engine, SPEC, policy), []
        for start, part in enumerate([prompt, *([token] for token in text)]):
            x = yield from decoder.embed(part if source.rank == CLIENT else None, len(part), cache.position)
            logits.append((yield from decoder.step(x, cache) if start else decoder.prefill(x, cache)))
        return logits[1:], list(cache.tokens)

    return program


def simulated(name: str, prompt: list[int], text: list[int]) -> tuple[Tensor, list[int], list[Any]]:
    """Logits, cached tokens in the end, and kind and shape of everything that client and server opened."""
    program, trace = decoding(name, prompt, text), []

    def watched(source: Source) -> Program[tuple[list[Any], list[int]]]:
        inner, answer = program(source), None
        while True:
            try:
                wanted: Openings = next(inner) if answer is None else inner.send(answer)
            except StopIteration as stop:
                return stop.value
            if source.rank == CLIENT:
                trace.append([opening.kind for opening in wanted])
            answer = yield wanted

    for seed in range(20):
        trace.clear()
        try:
            first, second = Simulation(seed).run(watched)
        except TruncationFailure:
            continue
        return torch.cat([value_of(a, b) for a, b in zip(first[0], second[0], strict=True)]), first[1], trace
    raise AssertionError("truncation cannot fail twenty times in a row")


@pytest.mark.parametrize("name", VARIANTS)
def test_fss_decodes_like_the_plain_engine_and_opens_shapes_that_do_not_depend_on_the_text(name: str) -> None:
    traces = []
    for prompt, text in calm(name):
        expected = decode(plain(case(name)), prompt, text)
        found, held, trace = simulated(name, prompt, text)
        assert (found - expected.logits).abs().max() < (0.5 if name in QUANTISED else ROUNDING)
        assert held == expected.left
        traces.append(trace)
    assert traces[0] == traces[1]


def opened(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every number that client and server open, with shuffles that are the same each time."""
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        monkeypatch.setattr(selection, "uniform", lambda *shape, g=generator: torch.randint(2**62, shape, generator=g))
        simulation = Simulation(seed)
        for source in (simulation.client, simulation.server):
            source.device = torch.device(device)
        try:
            simulation.run(decoding(name, *tokens()))
        except TruncationFailure:
            continue
        return [
            part.cpu() if isinstance(part, Tensor) else torch.from_numpy(part) for r in simulation.opened for part in r
        ]
    raise AssertionError("truncation cannot fail twenty times in a row")


@pytest.mark.gpu
@pytest.mark.parametrize("name", VARIANTS)
def test_on_a_gpu_fss_opens_the_same_numbers_bit_for_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu, on_gpu = (opened(name, device, monkeypatch) for device in ("cpu", "cuda"))
    assert len(on_cpu) == len(on_gpu)
    assert all(map(torch.equal, on_cpu, on_gpu))


def all_policies(role: str, mesh: Mesh, meter: StageMeter, texts: dict[str, list[Text]]) -> Any:
    from parties.engines.crypten.engine import CrypTenEngine
    from parties.engines.crypten.provider import Dealer

    if role == "dealer":
        return Dealer(mesh["client"], mesh["server"], meter).serve()
    engine, results = CrypTenEngine(role, mesh, meter), {}
    for name in texts:
        policy, spec, logits, traffic = case(name), few_layers(name), [], []
        installed = parameters(policy, spec)
        shapes = {key: tuple(w.shape) for key, w in installed.items()}
        run(engine.install(shapes, installed if role == "server" else None))
        for prompt, text in texts[name]:
            decoder, cache, out = Decoder(engine, spec, policy), Cache.empty(spec.n_layers), []
            meter.reset()
            for start, part in enumerate([prompt, *([token] for token in text)]):
                x = run(decoder.embed(part if role == "client" else None, len(part), cache.position))
                out.append(run(decoder.step(x, cache) if start else decoder.prefill(x, cache)))
            logits.append([engine.export(value) for value in out[1:]])
            readings = [r for r in meter.snapshot() if r.phase == "online"]
            traffic.append({r.stage: (r.rounds, r.sent_bytes, r.received_bytes, r.messages) for r in readings})
        results[name] = (logits, traffic)
    engine.finish()
    return results


@pytest.fixture(scope="module")
def crypten() -> dict[str, Any]:
    """Each policy on two texts of the same length, in few layers: CrypTen takes hundreds of rounds for each."""
    return together(all_policies, {name: brief(name) for name in ON_CRYPTEN})


def brief(name: str) -> list[Text]:
    return calm(name, few_layers(name), prompt=11, steps=2)


def few_layers(name: str) -> ModelSpec:
    """One layer, or two for a selection that is made in the layer before."""
    return SPEC if name.endswith("ahead") else SMALLER


@pytest.mark.parametrize("name", ON_CRYPTEN)
def test_crypten_decodes_like_the_plain_engine_and_its_traffic_does_not_depend_on_the_text(
    name: str, crypten: dict[str, Any]
) -> None:
    (mine, traffic), (theirs, others) = crypten["client"][name], crypten["server"][name]
    for index, text in enumerate(brief(name)):
        expected = decode(plain(case(name), few_layers(name)), *text).logits
        found = torch.cat([(a + b).double() / 2**16 for a, b in zip(mine[index], theirs[index], strict=True)])
        assert (found - expected).abs().max() < CRYPTEN
    assert traffic[0] == traffic[1]
    assert others[0] == others[1]
