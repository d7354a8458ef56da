"""CPU time per random number in `crypten`, from the keystream (`private`) and from torch's generator (`stock`).

    python benchmarks/crypten_draws.py

CPU time of this process, the minimum of several tries, which other load on the machine affects little.
"""

import argparse
import time

from parties.engines import Randomness
from parties.engines.crypten.randomness import dealt_seed, generator_of

from crypten.common import rng  # isort: skip - after what makes it importable

SIZES = (10, 1_000, 100_000, 1_000_000)
KINDS: tuple[Randomness, ...] = ("private", "stock")
TRIES = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--numbers", type=int, default=1_000_000, help="numbers drawn per try")
    numbers = parser.parse_args().numbers
    print("| numbers at once | private, ns each | stock, ns each |", "| ---: | ---: | ---: |", sep="\n")
    for size in SIZES:
        private, stock = (nanoseconds(kind, size, max(1, numbers // size)) for kind in KINDS)
        print(f"| {size:,} | {private:,.1f} | {stock:,.1f} |")


def nanoseconds(randomness: Randomness, size: int, draws: int) -> float:
    """CPU time per number in nanoseconds, when `size` are drawn at once."""
    generator, taken = generator_of(dealt_seed(randomness)), []
    for _ in range(TRIES):
        start = time.process_time()
        for _ in range(draws):
            rng.generate_random_ring_element((size,), generator=generator)
        taken.append(time.process_time() - start)
    return min(taken) / (size * draws) * 1e9


if __name__ == "__main__":
    main()
