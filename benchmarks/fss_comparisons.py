"""Comparison keys of the `fss` engine: evaluations and key generations per second of one core's time.

    python benchmarks/fss_comparisons.py [--seconds 0.3]

Each row is measured with whole trees by the processor's AES instructions (where it has them) and level by level through
the library. The shapes are those of a layer of SmolLM2-135M (shift of the softmax: 9 heads, 3 sums), of its argmax over
49,152 logits, and of a ranking. Time is that of the thread, so that other programs count as little as possible.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from parties.engines.fss.kernels import aes_instructions
from parties.engines.fss.randomness import dcf, payload_dcf

SHAPES = (  # name, keys, points, bits, lanes of the payload or 0 for a bit
    ("edges of an inverse root", 1, 15, 62, 0),
    ("shift of the softmax", 27, 11, 62, 1),
    ("ranking of 64", 2016, 1, 24, 0),
    ("first level of the argmax", 24_576, 1, 23, 3),
)


def numbers(bits: int, *shape: int) -> Tensor:
    """Draws numbers below 2^bits."""
    return torch.randint(0, 2**bits, shape, generator=torch.Generator().manual_seed(bits))


def rate(amount: int, action: Callable[[], Any], seconds: float) -> float:
    """Returns the amount over the thread's seconds of one action, the best of three series of so many seconds."""
    action()
    best = 0.0
    for _ in range(3):
        start, times = time.thread_time(), 0
        while (passed := time.thread_time() - start) < seconds:
            action()
            times += 1
        best = max(best, amount * times / passed)
    return best


def rates(keys: int, points: int, bits: int, lanes: int, instructions: bool, seconds: float) -> tuple[float, float]:
    """Returns points evaluated and keys generated per second."""
    permutation = dcf.Permutation(bytes(dcf.PERMUTATION_KEY_BYTES), instructions)
    alpha, x, beta = numbers(bits, keys), numbers(bits, keys, points), numbers(32, keys, max(lanes, 1))
    own, theirs = (numbers(8, keys, 16).to(torch.uint8) for _ in range(2))

    def generate() -> Tensor:
        if lanes:
            return payload_dcf.generate(permutation, alpha, beta, bits, own, theirs)
        return dcf.generate(permutation, alpha, bits, own, theirs)

    key = generate()

    def evaluate() -> Tensor:
        if lanes:
            return payload_dcf.evaluate(permutation, 0, x, bits, lanes, own, key)
        return dcf.evaluate(permutation, 0, x, bits, own, key)

    return rate(keys * points, evaluate, seconds), rate(keys, generate, seconds)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each series")
    seconds = parser.parse_args().seconds
    torch.set_num_threads(1)
    print(f"{'':28} {'keys':>7} {'points':>6} {'bits':>4} {'way':>12} {'evaluated/s':>12} {'generated/s':>12}")
    ways = {"library": False} | ({"instructions": True} if aes_instructions.AVAILABLE else {})
    for name, keys, points, bits, lanes in SHAPES:
        for way, instructions in ways.items():
            evaluated, generated = rates(keys, points, bits, lanes, instructions, seconds)
            print(f"{name:28} {keys:7} {points:6} {bits:4} {way:>12} {evaluated:12,.0f} {generated:12,.0f}")


if __name__ == "__main__":
    main()
