"""The dealer's advantage from retries, for a real model's numbers: the sum of |x| / 2^63 over all truncations.

    python benchmarks/fss_advantage.py TEXT [--tokens 48] [--model smollm2-135m]

The dealer knows the mask r of each truncated number x and learns which segment failed. Given r, the event that x + r
lies within 2^k of +-2^63 is a comparison of x with a number that it knows; over r, the total variation between the
event for x and for 0 is |x| / 2^63 (`check` counts it in a ring of 2^16). All three parties run in one process: the
prompt inside the computation, then one token. Takes minutes with SmolLM2-135M.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import fss_repeats
import torch

from parties.decoding.cache import Cache
from parties.decoding.decoder import Decoder
from parties.decoding.prefill import prompt_segments
from parties.decoding.steps import token_segments
from parties.decoding.workload import Prefill
from parties.engines.fss.arithmetic import gates, ring
from parties.engines.fss.arithmetic.matrices import ServerMatrix, is_matrix
from parties.engines.fss.arithmetic.values import Masked
from parties.engines.fss.computation import Computation
from parties.engines.fss.cost import simulation
from parties.engines.fss.cost.simulation import Simulation
from parties.engines.fss.randomness.source import CLIENT, DEALER, SERVER
from parties.models import load_spec, load_tokenizer, load_weights
from parties.models.folding import fold
from parties.policies import Full


def check() -> None:
    """Counts, in a ring of 2^16, the masks for which the event distinguishes x from 0."""
    half, k = 1 << 15, 11
    for x in (1, 37, 1 << 8, 1 << 10):
        differ = sum(_inside(r, half, k) != _inside(x + r, half, k) for r in range(-half, half))
        print(f"ring of 2^16, x = {x}: {differ} of 2^16 masks distinguish x from 0; 2 |x| = {2 * x}")


def _inside(number: int, half: int, k: int) -> bool:
    number = (number + half) % (2 * half) - half
    return number >= half - (1 << k) or number < (1 << k) - half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--model", default="smollm2-135m")
    given = parser.parse_args()
    torch.set_num_threads(1)
    check()
    vars(simulation)["_require"] = lambda *_: None  # the first token exceeds bounds, which does not matter here
    tokens = load_tokenizer(given.model).encode(given.text.read_text())[: given.tokens + 1]
    parts: dict[int, list[tuple[torch.Tensor, str]]] = {CLIENT: [], SERVER: []}
    honest = gates.truncate

    def truncate(x: Masked, scale: int = ring.FRACTION_BITS) -> Masked:
        if x.scale > scale and x.source.rank != DEALER:
            parts[x.source.rank].append((x.additive().share.reshape(-1), x.source.meter.current))
        return honest(x, scale)

    with fss_repeats.replaced(truncate):
        for phase, moved in measured(given.model, tokens, parts).items():
            print(f"{phase}: sum of |x| / 2^63 = {sum(moved.values()):.2e}")
            for stage, part in sorted(moved.items(), key=lambda item: -item[1]):
                print(f"  {stage:12} {part:.2e}")


def measured(model: str, tokens: list[int], parts: Any) -> dict[str, dict[str, float]]:
    """Sums |x| / 2^63 by phase and stage."""
    spec = load_spec(model)
    folded = fold(spec, load_weights(model))
    sim, size = Simulation(1), Prefill(len(tokens) - 1, len(tokens) - 1)
    engines: dict[int, Any] = {source.rank: Computation(source) for source in sim.sources}
    generator = torch.Generator().manual_seed(1)
    for name, weight in folded.items():
        if is_matrix(name, tuple(weight.shape)):
            plain = ring.encode(weight.T.contiguous())
            b = torch.randint(-(2**62), 2**62, plain.shape, generator=generator)
            for rank, matrix in ((DEALER, b), (SERVER, plain), (CLIENT, plain - b)):
                engines[rank].matrices[name] = ServerMatrix(matrix)
    caches = {rank: Cache.empty(spec.n_layers) for rank in engines}
    segments: dict[int, list[Any]] = {}
    for rank, engine in engines.items():
        decoder, own = Decoder(engine, spec, Full()), tokens if rank == CLIENT else None
        segments[rank] = [
            *prompt_segments(decoder, caches[rank], own and own[:-1], size),
            *token_segments(decoder, caches[rank], own and own[-1:], "client"),
        ]
    prompt = len(prompt_segments(Decoder(engines[0], spec, Full()), caches[0], None, size))
    moved: dict[str, dict[str, float]] = {"prompt": defaultdict(float), "token": defaultdict(float)}
    for index in range(len(segments[0])):
        restores = [cache.snapshot() for cache in caches.values()]
        while True:
            for log in parts.values():
                log.clear()
            try:
                sim.run(lambda source, index=index: segments[source.rank][index]())
                break
            except gates.TruncationFailure:
                for restore in restores:
                    restore()
        for (a, stage), (b, _) in zip(parts[CLIENT], parts[SERVER], strict=True):
            moved["prompt" if index < prompt else "token"][stage] += float((a + b).double().abs().sum()) / 2**63
    return moved


if __name__ == "__main__":
    main()
