"""A real prefill and decode step, recorded at a party and replayed on other randomness."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import Program
from parties.decoding.steps import decode_token
from parties.engines.fss.computation import Computation
from parties.engines.fss.cost.simulation import Simulation
from parties.engines.fss.randomness.source import CLIENT, SERVER, Source
from parties.engines.fss.recording.memory import tensors_in
from parties.engines.fss.recording.tracer import Tracer
from tests.helpers.policy_cases import SPEC, case, parameters
from tests.parties.engines.fss.arithmetic.test_embedding import table_of

DRAWS = ("mask", "deal", "deal_bytes", "broadcast", "seeds", "random_bits")
SMALLER = replace(SPEC, n_layers=1)


def decoding(engine: Computation, name: str, installed: dict[str, Tensor]) -> Program[None]:
    """Installs a model, prefills five tokens and decodes one."""
    source, cache, owns = engine.source, Cache.empty(SMALLER.n_layers), engine.source.rank == CLIENT
    shapes = {name: tuple(w.shape) for name, w in installed.items()}
    yield from engine.install(shapes, installed if source.rank == SERVER else None)
    decoder = Decoder(engine, SMALLER, case(name))
    x = yield from decoder.embed([3] * 5 if owns else None, 5, 0)
    yield from decoder.prefill(x, cache)
    yield from decode_token(decoder, cache, [1] if owns else None, "private")


class Run:
    """What one party draws, opens and receives; its operations are noted if a tracer is given."""

    def __init__(self, tracer: Tracer | None) -> None:
        self.tracer, self.inputs, self.opened = tracer, list[Tensor](), list[Tensor]()

    def watch(self, source: Source, program: Program[None]) -> Program[None]:
        for name in DRAWS:
            setattr(source, name, self._drawing(getattr(source, name)))
        source.refuse = lambda *_: None  # type: ignore[method-assign]
        source.note = self._untraced(source.note)  # type: ignore[method-assign]
        answer = None
        while True:
            with self.tracer or nullcontext():
                try:
                    wanted = next(program) if answer is None else program.send(answer)
                except StopIteration:
                    return
                if self.tracer:
                    self.tracer.cut()
            self.opened += [opening.hidden for opening in wanted]
            answer = yield wanted
            self.inputs += tensors_in(list(answer))

    def _untraced(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def untraced(*arguments: Any) -> Any:
            with self.tracer.paused() if self.tracer else nullcontext():
                return function(*arguments)

        return untraced

    def _drawing(self, draw: Callable[..., Any]) -> Callable[..., Any]:
        untraced = self._untraced(draw)

        def drawn(*arguments: Any) -> Any:
            found = untraced(*arguments)
            self.inputs += tensors_in(list(found) if isinstance(found, tuple) else found)
            return found

        return drawn


def run(name: str, rank: int, tracer: Tracer | None, seed: int) -> Run:
    torch.manual_seed(0)
    installed, found, simulation = parameters(case(name), SMALLER), Run(tracer), Simulation(seed)

    def program(source: Source) -> Program[None]:
        source.comparison = "prefix"
        engine = Computation(source)
        engine.matrices = {name: table_of(source, w) for name, w in installed.items() if w.dim() == 2}
        plain = decoding(engine, name, installed)
        return found.watch(source, plain) if source.rank == rank else plain

    simulation.client.declared = simulation.server.declared = lambda _: None  # it would look at the numbers
    simulation.run(program)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rank"), [("full", CLIENT), ("mpcache", SERVER), ("h2o by step", CLIENT)])
def test_a_replay_opens_what_the_interpreter_opens(name: str, rank: int) -> None:
    tracer = Tracer()
    recorded, other = run(name, rank, tracer, 1), run(name, rank, None, 2)
    recording = tracer.finish(recorded.opened)
    for own, its in zip(recorded.inputs, other.inputs, strict=True):
        own.copy_(its)
    for tape in recording.tapes:
        tape.run()
    assert len(recording.tensors) > 50
    for found, wanted in zip(recording.tensors, other.opened, strict=True):
        assert torch.equal(found, wanted)
