"""Local work per token with `fss`, recorded steps against interpreted ones, compared with reading the weights once.

    python benchmarks/fss_steps.py [--layers 30] [--tokens 512] [--policy full] [--steps 8] [--batch 1] [--calls]
    python benchmarks/fss_steps.py --device cuda [--shape llama2-7b] [--role client ...] [--threads 1] [--prefill]

Client, server and dealer are processes that are connected over loopback; the dealer's randomness is stored before the
tokens begin, so that nothing runs beside the two parties. Weights are random, with the shapes of SmolLM2-135M. A
party's local work is the time of its online stages less the time in calls of links; the dealer's is the processor time
of its thread. The first tokens of a shape are interpreted, so the median over the tokens is taken. With `--calls` the
client's calls of Python functions are counted, too, in a run of their own. Instructions are the tape machine's, per
layer.

On a GPU each role has a process of its own, one after the other on the same device, and the others are echoes
(`fss_alone`). Weights are drawn on the device, and the median is that of the last half of the tokens. With `--prefill`
the prompt is measured instead of the tokens after it, at client and server, with what it takes to record its chunks.
"""

import argparse
import gc
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import fss_alone
import torch
from fss_gates import SMOLLM2

from parties.decoding.batch import Batch
from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import run
from parties.decoding.steps import decode_in_segments, fold
from parties.engines.fss.dealing.dealer import Dealer
from parties.engines.fss.dealing.dry_run import DryRun
from parties.engines.fss.engine import FssEngine
from parties.metering.meter import StageMeter
from parties.models.folding import folded_shapes
from parties.models.spec import ModelSpec
from parties.options import RunOptions
from parties.policies import MPCache, make
from parties.policies.base import Policy
from parties.transport.mesh import Listener, Mesh, connect

ROLES = ("client", "server", "dealer")
SHAPES = {
    "smollm2": replace(SMOLLM2, n_layers=30, vocab=49_152),
    "llama2-7b": replace(
        SMOLLM2, n_layers=32, hidden=4096, n_heads=32, n_kv_heads=32, head_dim=128, intermediate=11_008, vocab=32_000
    ),
    "tiny": replace(SMOLLM2, n_layers=2, hidden=64, n_heads=4, n_kv_heads=2, head_dim=16, intermediate=128, vocab=512),
}
POLICIES: dict[str, Callable[[], Policy]] = {
    "full": lambda: make("full"),
    "mpcache": lambda: make("mpcache"),
    "mpcache-ahead": lambda: make("mpcache", ahead=True),
}


def main() -> None:
    given = parse()
    if given.device == "cuda":
        alone(given)
        return
    print(f"{given.layers} layers, token after {given.tokens} tokens, {given.policy}, median of {given.steps} tokens\n")
    print(
        "| role | steps | ms per token | times reading the matrices | Python calls per token | instructions |\n"
        "|---|---|---|---|---|---|"
    )
    for recorded in (True,) if given.recorded else (False, True):
        results = together(given, recorded, calls=False)
        counted = together(given, recorded, calls=True)["client"][0] if given.calls else []
        for role in ROLES:
            seconds, bound, instructions = results[role]
            typical = statistics.median(seconds)
            calls = f"{statistics.median(counted):,.0f}" if counted and role == "client" else ""
            ratio = f"{typical / bound:.1f}" if bound else ""
            name = "recorded" if recorded else "interpreted"
            print(
                f"| {role} | {name} | {typical * 1000:.0f} | {ratio} | {calls} | {per_layer(instructions)} |",
                flush=True,
            )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Local work of recorded and of interpreted steps.")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="smollm2")
    parser.add_argument("--layers", type=int, help="those of the shape by default")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--policy", choices=tuple(POLICIES), default="full")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--calls", action="store_true")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--role", choices=ROLES, nargs="+", default=ROLES, help="on a GPU, the roles to measure")
    parser.add_argument("--threads", type=int, default=1, help="of each party on a GPU; the dealer's products use them")
    parser.add_argument("--prefill", action="store_true", help="on a GPU, measure the prompt")
    parser.add_argument("--recorded", action="store_true", help="measure recorded steps alone")
    given = parser.parse_args()
    given.layers = given.layers or SHAPES[given.shape].n_layers
    return given


def alone(given: argparse.Namespace) -> None:
    """Measures each role by itself on a GPU."""
    spec, context = replace(SHAPES[given.shape], n_layers=given.layers), multiprocessing.get_context("spawn")
    print(
        f"{given.shape}, {given.layers} layers, token after {given.tokens} tokens, {given.policy}, "
        f"batch of {given.batch}\n"
    )
    print(
        "| role | steps | ms per token | ms of reading the matrices | GB allocated | GB used | instructions per layer |"
    )
    print("|---|---|---|---|---|---|---|")
    for role in given.role:
        for recorded in (True,) if given.recorded else (False, True):
            pipe, theirs = context.Pipe()
            policy = POLICIES[given.policy]()
            shapes = cached(policy, policy.cached(given.tokens), spec)
            arguments = (role, spec, policy, shapes, given, recorded, theirs)
            process = context.Process(target=fss_alone.measured, args=arguments)
            process.start()
            theirs.close()
            found = pipe.recv()
            process.join()
            name, (allocated, used) = "recorded" if recorded else "interpreted", (found["allocated"], found["used"])
            milliseconds, reading = 1000 * found["typical"], 1000 * found["reading"]
            print(
                f"| {role} | {name} | {milliseconds:.1f} | {reading:.1f} | {allocated / 1e9:.1f} | {used / 1e9:.1f} | "
                f"{per_layer(found['instructions'])} |"
            )
            print(found, file=sys.stderr, flush=True)


def per_layer(instructions: list[int]) -> str:
    """Returns the median instructions of a layer's segment, without those of the embedding and of the choice."""
    return f"{statistics.median(instructions[1:-1]):.0f}" if len(instructions) > 2 else ""


def together(given: argparse.Namespace, recorded: bool, *, calls: bool) -> dict[str, Any]:
    """Runs the three parties; returns what each measured."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["parties.engines.fss.engine", "parties.engines.fss.dealing.dealer"])  # imports once
    listeners = {role: Listener("127.0.0.1") for role in ROLES}
    addresses = {role: listener.address for role, listener in listeners.items()}
    pipes, processes = {}, []
    for role in ROLES:
        pipes[role], theirs = context.Pipe()
        arguments = (role, listeners[role].socket, addresses, theirs, given, recorded, calls)
        processes.append(context.Process(target=party, args=arguments))
        processes[-1].start()
        listeners[role].close()
        theirs.close()
    results = {role: pipe.recv() for role, pipe in pipes.items()}
    for process in processes:
        process.join()
    return results


def party(
    role: str, sock: Any, addresses: Any, pipe: Connection, given: argparse.Namespace, recorded: bool, calls: bool
) -> None:
    torch.set_num_threads(1)
    if calls:
        gc.disable()  # CPython 3.11.2 can crash in a collection while frames are profiled
    listener, meter = Listener.__new__(Listener), StageMeter()
    listener.socket = sock
    with connect(role, listener, addresses, "steps", meter, 60.0) as mesh:
        if role == "dealer":
            pipe.send((dealt(mesh, meter, given, recorded), 0.0, []))
        else:
            pipe.send(decoded(role, mesh, meter, given, recorded, calls))


def dealt(mesh: Mesh, meter: StageMeter, given: argparse.Namespace, recorded: bool) -> list[float]:
    """Processor seconds of each token's segments."""
    segments: list[float] = []
    deal, begin = DryRun._deal, DryRun.begin  # noqa: SLF001

    def clocked(self: DryRun, segment: Any) -> None:
        start = time.thread_time()
        deal(self, segment)
        segments.append(time.thread_time() - start)

    def chosen(self: DryRun, attempt: int) -> None:
        self._replays = recorded
        begin(self, attempt)

    DryRun._deal, DryRun.begin = clocked, chosen  # type: ignore[method-assign] # noqa: SLF001
    Dealer(mesh["client"], mesh["server"], meter).serve()
    size = given.layers + 2
    return [sum(segments[start : start + size]) for start in range(1, len(segments) - size + 1, size)]


def decoded(
    role: str, mesh: Mesh, meter: StageMeter, given: argparse.Namespace, recorded: bool, calls: bool
) -> tuple[list[float], float, list[int]]:
    """Local seconds of each token, or Python calls; seconds of reading the matrices; instructions of recordings."""
    spec, policy = replace(SHAPES[given.shape], n_layers=given.layers), POLICIES[given.policy]()
    engine = FssEngine(role, mesh, meter)
    run(engine.install(folded_shapes(spec), weights(spec) if role == "server" else None), engine.exchange)
    tokens = policy.cached(given.tokens)
    decoder = Decoder(engine, spec, policy)
    batch = Batch([filled(engine, policy, tokens, spec) for _ in range(given.batch)])
    engine.prepare(decoder.workload(batch, given.steps, RunOptions(offline="stored")), batch)
    fold(decoder, batch)
    engine.replays = recorded
    measured, own = [], [1] * given.batch if role == "client" else None
    for _ in range(given.steps):
        meter.reset()
        if calls:
            sys.setprofile(count := Count())
        decode_in_segments(decoder, batch, own, "private")
        sys.setprofile(None)
        online = [stage.compute_seconds for stage in meter.snapshot() if stage.phase == "online"]
        measured.append(float(count.calls) if calls else sum(online))
    instructions = engine.recordings.instructions
    engine.finish()
    return measured, reading(engine), instructions


def filled(engine: FssEngine, policy: Policy, tokens: int, spec: ModelSpec) -> Cache:
    """A prefilled cache of zeros."""
    shapes = cached(policy, tokens, spec)
    named = {name: engine.adopt(torch.zeros(shape, dtype=torch.int64)) for name, shape in shapes.items()}
    return Cache.from_values(spec.n_layers, tokens, named)


class Count:
    """Counts calls of Python functions."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, _: Any, event: str, __: Any) -> None:
        """A profile function of `sys.setprofile`."""
        self.calls += event == "call"


def weights(spec: Any) -> dict[str, torch.Tensor]:
    """Random weights that keep activations as large as their inputs."""
    drawn = torch.Generator().manual_seed(1)
    made = {}
    for name, shape in folded_shapes(spec).items():
        size = (shape[0] * (spec.head_dim if name.endswith("qkv") else 1)) ** -0.5
        made[name] = torch.randn(shape, generator=drawn) * size
    return made


def cached(policy: Policy, tokens: int, spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Shapes of a prefilled cache."""
    shapes: dict[str, tuple[int, ...]] = {}
    heads, d = spec.n_kv_heads, spec.head_dim
    for layer in range(spec.n_layers):
        shapes |= {f"{layer}.{part}": (heads, tokens, d) for part in ("k", "v")}
        if isinstance(policy, MPCache) and policy.chooses(layer):
            for level, size in (("coarse", policy.coarse_size), ("fine", policy.fine_size)):
                shapes |= {f"{layer}.{end}_{level}": (heads, -(-tokens // size), d) for end in ("high", "low")}
    return shapes


def reading(engine: FssEngine) -> float:
    """Seconds of reading all matrices once, the fastest of five."""
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for matrix in engine.matrices.values():
            matrix.transposed.sum()
        best = min(best, time.perf_counter() - start)
    return best


if __name__ == "__main__":
    main()
