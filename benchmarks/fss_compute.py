"""Local compute time per token with `fss`, compared with the time to read the stored weights once.

    python benchmarks/fss_compute.py [--layers 30] [--tokens 512] [--policy full] [--device cuda] [--threads 1]
        [--prefill] [--repeats 5]

Client and server run in one process, in turn, each with its own clock, on correlated randomness that was dealt before.
Weights are random, with the shapes of SmolLM2-135M. The bound is the time to read the matrices that a party stores.
With `--prefill` the prompt of `tokens` tokens is measured instead of the token after it. With `--device cuda` the share
of the memory bandwidth that the matrix-vector kernel reaches is printed, too.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from fss_gates import SMOLLM2, _cache, _matrix

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.prefill import prompt_segments
from parties.decoding.program import Program
from parties.decoding.steps import decode_token
from parties.decoding.workload import Prefill
from parties.engines.fss.arithmetic import gates, ring
from parties.engines.fss.arithmetic.matrices import ServerMatrix
from parties.engines.fss.computation import Computation
from parties.engines.fss.cost.simulation import Simulation
from parties.engines.fss.randomness.source import CLIENT, DEALER, Source
from parties.models.folding import folded_shapes
from parties.models.spec import ModelSpec
from parties.policies import make
from parties.policies.base import Policy

ROLES = ("client", "server")
GIGA = 1e9


class Clocked(Simulation):
    """Measures how long each of the two parties computes.

    Attributes:
        seconds: Compute time of the client and of the server since the last `start`.
    """

    seconds: list[float]
    _since: list[float]

    def start(self, rank: int) -> None:
        """Resets a party's clock."""
        if rank != DEALER:
            self.seconds[rank], self._since[rank] = 0.0, time.perf_counter()

    def _lockstep(self, *programs: Program[Any]) -> tuple[Any, Any]:
        self.seconds, self._since = [0.0, 0.0], [0.0, 0.0]
        first, second = (self._clocked(program, index) for index, program in enumerate(programs))
        return super()._lockstep(first, second)

    def _clocked(self, program: Program[Any], index: int) -> Program[Any]:
        answer = None
        while True:
            self._since[index] = time.perf_counter()
            try:
                wanted = next(program) if answer is None else program.send(answer)
            except StopIteration as stop:
                return stop.value
            finally:
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                self.seconds[index] += time.perf_counter() - self._since[index]
            answer = yield wanted


def main() -> None:
    given = parse()
    torch.set_num_threads(given.threads)
    spec = replace(SMOLLM2, n_layers=given.layers, vocab=49_152)
    what = "prompt of" if given.prefill else "token after"
    print(
        f"{given.layers} layers, {what} {given.tokens} tokens, {given.policy}, {given.device}, {given.threads} threads"
    )
    simulation = Clocked()
    kept: Any = {}
    for source in (simulation.client, simulation.server):
        source.device = torch.device(given.device)
    best = [float("inf")] * 2
    for _ in range(given.repeats + 1):  # the first one builds tables and kernels
        compute(simulation, kept, spec, make(given.policy), given.tokens, prefill=given.prefill)
        best = [min(pair) for pair in zip(best, simulation.seconds, strict=True)]
    for rank, role in enumerate(ROLES):
        matrices = [matrix.transposed for matrix in kept[rank].values()]
        size = 8 * sum(matrix.numel() for matrix in matrices)
        bound = fastest(lambda own=matrices: [matrix.sum() for matrix in own], given.device, given.repeats)
        print(
            f"{role}: {best[rank]:.3f} s; reading its {size / GIGA:.2f} GB of matrices takes {bound:.3f} s "
            f"({size / bound / GIGA:.0f} GB/s): {best[rank] / bound:.1f} times"
        )
    if given.device == "cuda":
        bandwidth(kept[1])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Local compute of one token with fss.")
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--policy", choices=("full", "mpcache"), default="full")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prefill", action="store_true")
    parser.add_argument("--repeats", type=int, default=5, help="the fastest of so many runs counts, after one warm-up")
    return parser.parse_args()


def compute(
    simulation: Clocked,
    kept: dict[int, dict[str, ServerMatrix]],
    spec: ModelSpec,
    policy: Policy,
    tokens: int,
    *,
    prefill: bool,
) -> None:
    """Runs one decode step, or a prefill; the matrices are made once and reused."""
    layers = spec.n_layers

    def program(source: Source) -> Program[Any]:
        engine = Computation(source)
        if source.rank not in kept:
            made = {name: _matrix(source, name, shape).transposed for name, shape in folded_shapes(spec).items()}
            device = source.device if source.rank != DEALER else "cpu"
            kept[source.rank] = {name: ServerMatrix(matrix.to(device)) for name, matrix in made.items()}
        engine.matrices = kept[source.rank]
        decoder = Decoder(engine, spec, policy)
        if prefill:
            own = [1] * tokens if source.rank == CLIENT else None
            simulation.start(source.rank)
            for segment in prompt_segments(decoder, Cache.empty(layers), own, Prefill(tokens, min(tokens, 113))):
                yield from segment()
            return None
        cache = _cache(engine, policy, policy.cached(tokens), layers)
        for segment in engine.mask_cache(cache):
            yield from segment()
        simulation.start(source.rank)
        return (yield from decode_token(decoder, cache, [1] if source.rank == CLIENT else None, "private"))

    while True:
        try:
            simulation.run(program)
        except gates.TruncationFailure:
            continue
        return


def bandwidth(matrices: dict[str, ServerMatrix]) -> None:
    """Compares the matrix-vector kernel with a plain read and a copy of the same memory."""
    print("\n| matrix | MB | kernel GB/s | read GB/s | copy GB/s | share of the better |\n|---|---|---|---|---|---|")
    for name in ("lm_head", "layers.0.gate_up", "layers.0.down", "layers.0.qkv"):
        several = max(1, 2**31 // (8 * matrices[name].transposed.numel()))  # larger than a cache
        matrix = matrices[name].transposed.repeat(several, 1)
        x = torch.randint(-(2**63), 2**63 - 1, (1, matrix.shape[1])).to(matrix.device)
        size = 8 * matrix.numel()
        kernel = size / fastest(lambda x=x, matrix=matrix: ring.vector_matrix(x, matrix), "cuda") / GIGA
        read = size / fastest(lambda matrix=matrix: matrix.sum(), "cuda") / GIGA
        target = torch.empty_like(matrix)
        copy = 2 * size / fastest(lambda target=target, matrix=matrix: target.copy_(matrix), "cuda") / GIGA
        share = kernel / max(read, copy)
        print(f"| {name} x {several} | {size / 1e6:.0f} | {kernel:.0f} | {read:.0f} | {copy:.0f} | {share:.0%} |")


def fastest(work: Callable[[], Any], device: str, repeats: int = 5) -> float:
    """Returns the seconds of the fastest of a few runs."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


if __name__ == "__main__":
    main()
