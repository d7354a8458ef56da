"""A model in the private engines: the logits of each step, given a prompt and the tokens after it."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import Program, run
from parties.engines.base import Engine
from parties.engines.fss.arithmetic.gates import TruncationFailure
from parties.engines.fss.computation import Computation
from parties.engines.fss.cost.simulation import Simulation, value_of
from parties.engines.fss.randomness.source import CLIENT, SERVER, Source
from parties.metering.meter import StageMeter
from parties.models.spec import ModelSpec
from parties.policies.base import Policy
from parties.transport.mesh import Mesh
from tests.parties.engines.fss.arithmetic.test_embedding import table_of

Decoded = tuple[list[Any], list[int]]
"""Logits of each step, as the engine holds them, and cached tokens of each layer in the end."""
Installed = Mapping[str, Tensor]


def decoding(
    decoder: Decoder, prompt: list[int], text: list[int], *, owns: bool, cache: Cache | None = None
) -> Program[Decoded]:
    """Prefill, unless there is a cache already, and decoding; `owns`: whether this party has the tokens."""
    logits = []
    if cache is None:
        cache = Cache.empty(decoder.spec.n_layers)
        x = yield from decoder.embed(prompt if owns else None, len(prompt), 0)
        yield from decoder.prefill(x, cache)
    for token in text:
        x = yield from decoder.embed([token] if owns else None, 1, cache.position)
        logits.append((yield from decoder.step(x, cache)))
    return logits, list(cache.tokens)


def at_source(
    spec: ModelSpec,
    policy: Policy,
    installed: Installed,
    prompt: list[int],
    text: list[int],
    shared: Cache | None = None,
) -> Callable[[Source], Program[Decoded]]:
    """`decoding` as a program of the engine `fss` at a source of randomness; `shared`: the prompt's cache, in clear."""
    shapes = {name: tuple(w.shape) for name, w in installed.items()}
    shares = {name: Computation.split(value) for name, value in ({} if shared is None else shared.values()).items()}

    def program(source: Source) -> Program[Decoded]:
        engine = Computation(source)
        engine.matrices = {name: table_of(source, w) for name, w in installed.items() if w.dim() == 2}
        yield from engine.install(shapes, installed if source.rank == SERVER else None)
        cache = None
        if shared is not None:
            adopted = {name: engine.adopt(parts[source.rank == SERVER]) for name, parts in shares.items()}
            cache = Cache.from_values(spec.n_layers, shared.position, adopted)
            for segment in engine.mask_cache(cache):
                yield from segment()
        own = Decoder(engine, spec, policy)
        return (yield from decoding(own, prompt, text, owns=source.rank == CLIENT, cache=cache))

    return program


def on_fss(
    spec: ModelSpec,
    policy: Policy,
    installed: Installed,
    prompt: list[int],
    text: list[int],
    shared: Cache | None = None,
) -> Tensor:
    """Logits of each step, [steps, vocab], in a simulation that checks every declared bound.

    Args:
        spec: The model.
        policy: The policy.
        installed: What the server installs.
        prompt: The prompt, which runs inside the computation.
        text: The tokens that are decoded.
        shared: The cache after the prompt, in clear, where it is shared instead.
    """
    for seed in range(20):
        try:
            first, second = Simulation(seed).run(at_source(spec, policy, installed, prompt, text, shared))
        except TruncationFailure:
            continue
        return torch.cat([value_of(a, b) for a, b in zip(first[0], second[0], strict=True)])
    raise AssertionError("truncation cannot fail twenty times in a row")


def on_plain(engine: Engine, spec: ModelSpec, policy: Policy, prompt: list[int], text: list[int]) -> Tensor:
    """Logits of each step, [steps, vocab], on a plain engine with the model installed."""
    return torch.cat(run(decoding(Decoder(engine, spec, policy), prompt, text, owns=True))[0])


def crypten_party(
    role: str, mesh: Mesh, meter: StageMeter, cases: Mapping[str, tuple[ModelSpec, Policy, Mapping[str, Any], Any]]
) -> Any:
    """A party of `together`: shares of the logits of each step, for each case; parameters are arrays of NumPy.

    A tensor would take a file descriptor on its way to the process.
    """
    from parties.engines.crypten.engine import CrypTenEngine
    from parties.engines.crypten.provider import Dealer

    if role == "dealer":
        return Dealer(mesh["client"], mesh["server"], meter).serve()
    engine, found = CrypTenEngine(role, mesh, meter), {}
    for name, (spec, policy, arrays, (prompt, text)) in cases.items():
        installed = {key: torch.from_numpy(array) for key, array in arrays.items()}
        shapes = {key: tuple(w.shape) for key, w in installed.items()}
        run(engine.install(shapes, installed if role == "server" else None))
        logits, _ = run(decoding(Decoder(engine, spec, policy), prompt, text, owns=role == "client"))
        found[name] = torch.cat([engine.export(value) for value in logits])
    engine.finish()
    return found
