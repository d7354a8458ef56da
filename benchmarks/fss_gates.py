"""The cost of the gates of the `fss` engine: rounds, online and offline bytes (exact), and milliseconds on one core.

    python benchmarks/fss_gates.py [--tokens 1024]

Client, server and dealer run in one process and one thread: the counts are those of a run between hosts, and the
milliseconds are local work without a network. The second table is one layer of a decode step with the shapes of
SmolLM2-135M, from the difference between a model of four layers and one of two, so that half of the layers select their
clusters and half use their source layer's.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.program import Program, parallel
from parties.decoding.steps import decode_token
from parties.engines.fss.arithmetic import gates
from parties.engines.fss.arithmetic.matrices import ServerMatrix
from parties.engines.fss.arithmetic.multiplication import multiply
from parties.engines.fss.arithmetic.values import Masked
from parties.engines.fss.computation import Computation
from parties.engines.fss.cost.simulation import Cost, Simulation, share
from parties.engines.fss.functions import softmax
from parties.engines.fss.functions.activation import activation
from parties.engines.fss.functions.norm import normalise, to_norm
from parties.engines.fss.randomness.source import CLIENT, DEALER, SERVER, Source
from parties.engines.fss.topk import maximum
from parties.models.folding import folded_shapes
from parties.models.spec import ModelSpec
from parties.policies import Full, MPCache
from parties.policies.base import Policy

SMOLLM2 = ModelSpec(
    family="llama", n_layers=2, hidden=576, n_heads=9, n_kv_heads=3, head_dim=64, intermediate=1536, vocab=1024,
    max_positions=8192, norm_eps=1e-5, activation="silu", tied=True,
)  # fmt: skip
GATES: dict[str, tuple[tuple[int, ...], int, Callable[[Masked], Program[Any]]]] = {
    "truncation": ((1000,), 32, lambda x: parallel(_done(gates.truncate(x)))),
    "product, opened": ((1000,), 16, lambda x: gates.open_(multiply([x, x], limit=64.0))),
    "maximum of 1,000 pairs": ((2, 1000), 16, lambda x: maximum.elementwise_maximum(x[0], x[1])),
    "SiLU of 1,536": ((1536,), 16, lambda x: activation(x, "silu")),
    "RMS norm of 576": ((1, 576), 16, lambda x: normalise(to_norm(x, centre=False), 1e-5)),
    "exponentials of 9 x 112": ((9, 112), 32, softmax.exponentials),
    "exponentials of 9 x 1,024": ((9, 1024), 32, softmax.exponentials),
    "argmax of 49,152": ((49_152,), 16, maximum.argmax),
}


def _done(value: Masked) -> Program[Masked]:
    return value
    yield


def gate(shape: tuple[int, ...], scale: int, function: Callable[[Masked], Program[Any]]) -> tuple[Cost, float]:
    """Returns the cost of a gate without the opening of its input, and the milliseconds of all three parties."""
    numbers = torch.randn(shape, dtype=torch.float64)
    simulation = Simulation()

    def program(source: Source) -> Program[Any]:
        return (yield from function((yield from gates.open_(share(source, numbers, 8.0, scale)))))

    simulation.run(program)  # builds tables
    start = time.perf_counter()
    simulation.run(program)
    cost, size = simulation.cost, 8 * numbers.numel()
    milliseconds = (time.perf_counter() - start) * 1000
    return Cost(cost.rounds - 1, cost.online_bytes - size, cost.offline_bytes), milliseconds


def step(policy: Policy, layers: int, tokens: int) -> tuple[Cost, Counter[str]]:
    """Runs one decode step on random weights; returns its cost, and the rounds by stage."""
    spec = replace(SMOLLM2, n_layers=layers)
    kept = policy.cached(tokens)
    rounds: Counter[str] = Counter()
    simulation = Simulation()
    exchange = simulation._exchange  # noqa: SLF001 - to count rounds by stage

    def watched(first: Any, second: Any) -> Any:
        rounds[first[0].stage] += 1
        return exchange(first, second)

    simulation._exchange = watched  # type: ignore[method-assign]  # noqa: SLF001

    def program(source: Source) -> Program[Any]:
        engine = Computation(source)
        engine.matrices = {name: _matrix(source, name, shape) for name, shape in folded_shapes(spec).items()}
        decoder, cache = Decoder(engine, spec, policy), _cache(engine, policy, kept, layers)
        for segment in engine.mask_cache(cache):
            yield from segment()
        return (yield from decode_token(decoder, cache, [1] if source.rank == CLIENT else None, "private"))

    while True:
        try:
            simulation.run(program)
        except gates.TruncationFailure:
            rounds.clear()
            continue
        return simulation.cost, rounds


def _matrix(source: Source, name: str, shape: tuple[int, ...]) -> ServerMatrix:
    """Draws weights that keep activations as large as their inputs, including the scores' 1 / sqrt(head_dim)."""
    generator = torch.Generator().manual_seed(shape[0] * 7919 + shape[1])
    size = (shape[0] * (SMOLLM2.head_dim if name.endswith("qkv") else 1)) ** -0.5
    mask = torch.randint(-(2**62), 2**62, (shape[1], shape[0]), generator=generator)
    weight = (torch.randn(shape[1], shape[0], generator=generator) * size * 2**16).long()
    return ServerMatrix({DEALER: mask, SERVER: weight, CLIENT: weight - mask}[source.rank])


def _cache(engine: Computation, policy: Policy, tokens: int, layers: int) -> Cache:
    named: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        named |= {f"{layer}.{part}": (3, tokens, 64) for part in ("k", "v")}
        if isinstance(policy, MPCache) and policy.source_layer(layer) == layer:
            for level, size in (("coarse", policy.coarse_size), ("fine", policy.fine_size)):
                named |= {f"{layer}.{end}_{level}": (3, -(-tokens // size), 64) for end in ("high", "low")}
    values = {}
    for index, (name, shape) in enumerate(named.items()):
        numbers = torch.randn(shape, generator=torch.Generator().manual_seed(index))
        values[name] = share(engine.source, numbers, 2.0**6)
    return Cache.from_values(layers, tokens, values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=1024)
    tokens = parser.parse_args().tokens
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{'gate':28} {'rounds':>6} {'online B':>10} {'to client B':>12} {'to server B':>12} {'ms, all three':>14}")
    for name, (shape, scale, function) in GATES.items():
        cost, milliseconds = gate(shape, scale, function)
        to_client, to_server = cost.offline_bytes
        print(f"{name:28} {cost.rounds:6} {cost.online_bytes:10} {to_client:12} {to_server:12} {milliseconds:14.1f}")
    for policy in (Full(), MPCache()):
        (few, stages), (many, more) = step(policy, 2, tokens), step(policy, 4, tokens)
        cached = [2 * 8 * 3 * policy.cached(tokens) * 64 * layers for layers in (2, 4)]
        bounds = _bounds_bytes(policy, tokens)
        online = (many.online_bytes - few.online_bytes - (cached[1] - cached[0]) - bounds) / 2
        offline = [(b - a) / 2 for a, b in zip(few.offline_bytes, many.offline_bytes, strict=True)]
        print(f"\n{policy.name}, {tokens} prompt tokens, one layer: {(many.rounds - few.rounds) / 2:g} rounds,")
        print(f"  {online / 1e3:.0f} kB online each way, {offline[0] / 1e3:.0f} + {offline[1] / 1e3:.0f} kB offline")
        print("  rounds by stage:", {stage: (more[stage] - stages[stage]) / 2 for stage in more if more[stage]})


def _bounds_bytes(policy: Policy, tokens: int) -> int:
    """Returns the bytes for masking the page bounds of the third layer, which are part of the prefill."""
    if not isinstance(policy, MPCache):
        return 0
    kept = policy.cached(tokens)
    return sum(2 * 8 * 3 * -(-kept // size) * 64 for size in (policy.coarse_size, policy.fine_size))


if __name__ == "__main__":
    main()
