"""One party of `fss` alone on a device: the others are echoes, so that a token takes nothing but local work.

What the peer would send is whatever the memory for it holds, and what the dealer would send is a frame of random bytes,
again and again. Masked numbers are uniformly random anyway, and no work depends on them.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from parties.decoding.batch import Batch, Caches
from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.prefill import chunked, prompt_segments
from parties.decoding.program import Program, run
from parties.decoding.steps import decode_in_segments, name_of
from parties.engines.base import Shapes
from parties.engines.fss import engine as engines
from parties.engines.fss.arithmetic.matrices import ServerMatrix, is_matrix
from parties.engines.fss.arithmetic.opening import PLACE_BYTES, dealer_openings
from parties.engines.fss.arithmetic.values import Masked
from parties.engines.fss.computation import Computation
from parties.engines.fss.dealing.dry_run import DryRun
from parties.engines.fss.dealing.plan import Plan
from parties.engines.fss.engine import FssEngine
from parties.engines.fss.randomness.dcf import PERMUTATION_KEY_BYTES, Permutation
from parties.engines.fss.randomness.dealer_source import DealerSource
from parties.engines.fss.randomness.frames import FRAME_BYTES, MARK_BYTES, FrameWriter
from parties.engines.fss.recording.warm_up import compile_all, compile_products
from parties.engines.fss.replay.inputs import Inputs
from parties.engines.keystream import SEED_BYTES, Keystream
from parties.metering.meter import StageMeter
from parties.metering.stages import RECORDING
from parties.models.folding import folded_shapes
from parties.options import RunOptions
from parties.policies.base import Policy

SEEDS = (bytes(SEED_BYTES), bytes([1]) * SEED_BYTES)


class Echo:
    """Stands for a link."""

    peer = "echo"

    def exchange(self, buffer: Any, *, alike: bool = False) -> bytes:  # noqa: ARG002 - as `Link.exchange`
        """Returns what is sent."""
        return bytes(buffer)

    def swap(self, frames: Any) -> None:
        """Returns the place of what is sent, and other numbers after it: a link's work is none of the party's."""
        frames.received[:PLACE_BYTES] = frames.payload[:PLACE_BYTES]

    def receive_tensor(self, shape: Iterable[int], dtype: torch.dtype) -> Tensor:
        """Returns zeros."""
        return torch.zeros(tuple(shape), dtype=dtype)

    def send(self, _: Any, *__: Any) -> None:
        """Does nothing."""

    send_json = send_tensor = put = send


class Frames:
    """Stands for the dealer: one frame, again and again, in the current epoch; pinned for a GPU, as stored ones are."""

    def __init__(self, engine: FssEngine) -> None:
        self._engine, pinned = engine, engine.source.device.type == "cuda"
        self._frame = torch.empty(MARK_BYTES + FRAME_BYTES, dtype=torch.uint8, pin_memory=pinned).numpy().data
        self._frame[MARK_BYTES:] = os.urandom(FRAME_BYTES)

    def next(self) -> memoryview:
        """The next frame."""
        self._frame[:MARK_BYTES] = self._engine.source.epoch.to_bytes(MARK_BYTES, "little")
        return self._frame

    def finish(self) -> None:
        """Does nothing."""


def measured(
    role: str, spec: Any, policy: Policy, shapes: dict[str, tuple[int, ...]], given: argparse.Namespace, recorded: bool,
    pipe: Connection,
) -> None:  # fmt: skip
    """Sends milliseconds of each token, those of reading the matrices, bytes on the device, and what was recorded."""
    torch.set_num_threads(given.threads)
    party = dealt if role == "dealer" else prompted if given.prefill else decoded
    pipe.send(party(role, spec, policy, shapes, given, recorded))


def decoded(
    role: str, spec: Any, policy: Policy, shapes: dict[str, tuple[int, ...]], given: argparse.Namespace, recorded: bool
) -> dict[str, Any]:
    """Decodes at a computing party."""
    engine = _engine(role, spec, given.device)
    cache, decoder, meter = folded(engine, spec, policy, shapes, given), Decoder(engine, spec, policy), engine.meter
    own = [1] * given.batch if role == "client" else None
    engine.mask_cache = lambda caches: [lambda: _masked(engine, caches)]  # type: ignore[method-assign]
    engine.prepare(decoder.workload(cache, given.steps, RunOptions()), cache)
    engine.replays = recorded
    seconds, stages = [], {}
    for _ in range(given.steps):
        meter.reset()
        decode_in_segments(decoder, cache, own, "private")
        _settle(given.device)
        stages = {stage.stage: stage.compute_seconds for stage in meter.snapshot()}
        seconds.append(sum(stage.compute_seconds for stage in meter.snapshot() if stage.phase == "online"))
    return _result(seconds, engine, given.device, engine.recordings, stages)


def prompted(
    role: str, spec: Any, policy: Policy, _: dict[str, tuple[int, ...]], given: argparse.Namespace, recorded: bool
) -> dict[str, Any]:
    """Runs a prompt at a computing party, as often as there are steps. To record its chunks is a part of it."""
    engine = _engine(role, spec, given.device)
    decoder, own = Decoder(engine, spec, policy), [1] * given.tokens if role == "client" else None
    size, seconds, stages, meter = chunked(decoder, given.tokens), list[float](), {}, engine.meter
    for _repeat in range(given.steps):
        cache = Cache.empty(spec.n_layers)
        engine.prepare(decoder.workload(cache, 1, RunOptions(), [size]), cache)
        engine.replays_chunks = recorded
        meter.reset()
        for segment in prompt_segments(decoder, cache, own, size):
            engine.run_segment(segment, cache, name_of(segment))
        _settle(given.device)
        found = meter.snapshot()
        stages = {stage.stage: stage.compute_seconds for stage in found}
        seconds.append(sum(stages[s.stage] for s in found if s.phase == "online" or s.stage == RECORDING))
    return _result(seconds, engine, given.device, engine.recordings, stages)


def _engine(role: str, spec: Any, device: str) -> FssEngine:
    """A computing party among echoes, with random matrices."""
    vars(engines).update(drawn_seed=lambda *_: (SEEDS[0], bytes(PERMUTATION_KEY_BYTES)))
    links = {"client": Echo(), "server": Echo(), "dealer": Echo()}
    engine = FssEngine(role, links, StageMeter(), device)  # type: ignore[arg-type]
    engine._matrices = lambda shapes, weights: _random_matrices(shapes, device)  # type: ignore[method-assign] # noqa: ARG005, SLF001
    supply = engine._supply = Frames(engine)  # type: ignore[assignment] # noqa: SLF001
    vars(engines).update(Receiver=lambda *_: supply)
    weights = {name: torch.zeros(()).expand(shape) for name, shape in folded_shapes(spec).items()}
    run(engine.install(folded_shapes(spec), weights if role == "server" else None), engine.exchange)
    return engine


def dealt(
    _: str, spec: Any, policy: Policy, shapes: dict[str, tuple[int, ...]], given: argparse.Namespace, recorded: bool
) -> dict[str, Any]:
    """Deals."""
    compile_all()
    (client, server), writer = map(Keystream, SEEDS), lambda: FrameWriter(Echo().send)
    source = DealerSource(StageMeter(), client, server, writer(), writer())
    source.permutation = Permutation(bytes(PERMUTATION_KEY_BYTES))
    engine, sizes = Computation(source), folded_shapes(spec)
    engine.matrices |= {name: ServerMatrix(matrix) for name, matrix in _random_matrices(sizes, given.device)}
    compile_products(torch.device(given.device), [matrix.transposed.shape[1] for matrix in engine.matrices.values()])
    source.begin(1)
    run(engine.install(sizes, None), dealer_openings)
    named = {name: engine.adopt(source.placeholder(shape)) for name, shape in shapes.items()}
    batch = Batch([Cache.from_values(spec.n_layers, policy.cached(given.tokens), named) for _ in range(given.batch)])
    plan = Plan.of(Decoder(engine, spec, policy).workload(batch, given.steps, RunOptions()), 2)
    senders: Any = {"client": Echo(), "server": Echo()}
    dry_run, segments = DryRun(engine, source, plan, senders, Inputs()), list[float]()
    dry_run._replays, deal = recorded, dry_run._deal  # noqa: SLF001

    def clocked(segment: Callable[[], Program[Any]]) -> None:
        start = time.perf_counter()
        deal(segment)
        _settle(given.device)
        segments.append(time.perf_counter() - start)

    dry_run._deal = clocked  # type: ignore[method-assign] # noqa: SLF001
    dry_run._prompted.set()  # noqa: SLF001
    dry_run._run(2, 0)  # noqa: SLF001
    size = spec.n_layers + 2
    first = len(segments) - size * given.steps  # masks and, of several sequences, folding
    tokens = [sum(segments[start : start + size]) for start in range(first, len(segments), size)]
    return _result(tokens, engine, given.device, dry_run._recordings, {})  # noqa: SLF001


def _result(
    seconds: list[float], engine: Computation, device: str, recordings: Any, stages: dict[str, float]
) -> dict[str, Any]:
    held = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    free, whole = torch.cuda.mem_get_info() if device == "cuda" else (0, 0)
    return {
        "seconds": seconds,
        "typical": statistics.median(seconds[len(seconds) // 2 :]),
        "reading": _reading(engine, device),
        "allocated": held,
        "used": whole - free,
        "replayed": recordings.replayed,
        "interpreted": recordings.interpreted,
        "instructions": recordings.instructions,
        "refused": sorted(set(recordings.refused.values())),
        "stages": stages,
    }


def _reading(engine: Computation, device: str) -> float:
    """Seconds of reading all matrices once, the fastest of five."""
    best = float("inf")
    for _ in range(5):
        _settle(device)
        start = time.perf_counter()
        for matrix in engine.matrices.values():
            matrix.transposed.sum()
        _settle(device)
        best = min(best, time.perf_counter() - start)
    return best


def _settle(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _drawn(shape: tuple[int, ...], device: str) -> Tensor:
    return torch.empty(shape, dtype=torch.int64, device=device).random_()


def _random_matrices(shapes: Shapes, device: str) -> Iterator[tuple[str, Tensor]]:
    return ((name, _drawn((s[1], s[0]), device)) for name, s in shapes.items() if is_matrix(name, s))


def folded(
    engine: FssEngine, spec: Any, policy: Policy, shapes: dict[str, tuple[int, ...]], given: argparse.Namespace
) -> Batch:
    """The sequences as they are after `Batch.fold`: one cache, in which a sequence's heads follow another's."""
    zero, batch = torch.zeros((), dtype=torch.int64), given.batch
    named = {name: engine.adopt(zero.expand(batch * heads, *rest)) for name, (heads, *rest) in shapes.items()}
    cache = Cache.from_values(spec.n_layers, policy.cached(given.tokens), named)
    cache.lanes = batch
    return Batch([cache])


def _masked(engine: FssEngine, caches: Caches) -> Program[None]:
    """Puts random numbers into a cache, as if they had been opened."""
    assert isinstance(caches, Batch)  # noqa: S101 - see `folded`
    (cache,) = caches.sequences
    source, device = engine.source, engine.source.device.type
    values = {}
    for name, value in cache.values().items():
        public, mask = (_drawn(tuple(value.shape), device) for _ in range(2))
        values[name] = Masked(source, public, mask, 16, value.limit, source.epoch)
    cache.layers = Cache.from_values(len(cache.layers), cache.position, values).layers
    return
    yield
