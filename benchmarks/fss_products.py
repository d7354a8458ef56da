"""Times products modulo 2^64 of several rows with a matrix, on one core, by the loop of the engine `fss`.

    python benchmarks/fss_products.py [--columns 3072] [--width 576]

The sizes by default are those of a layer's gate and up projection in SmolLM2-135M. The fastest of nine runs counts.
"""

import argparse
import time

import numpy as np

from parties.engines.fss.kernels.loops import products_by_columns

ROWS = (1, 2, 3, 4, 5, 8, 16, 77)


def main() -> None:
    parser = argparse.ArgumentParser(description="Products of several rows with a matrix.")
    parser.add_argument("--columns", type=int, default=3072)
    parser.add_argument("--width", type=int, default=576, help="numbers of a row")
    given = parser.parse_args()
    print("| rows | ms | times one row | products per ns |\n|---|---|---|---|")
    one = 0.0
    for rows in ROWS:
        seconds = fastest(rows, given.width, given.columns)
        one = one or seconds
        speed = rows * given.width * given.columns / seconds / 1e9
        print(f"| {rows} | {1000 * seconds:.2f} | {seconds / one:.1f} | {speed:.1f} |", flush=True)


def fastest(rows: int, width: int, columns: int) -> float:
    """Seconds of processor time."""
    draws = np.random.default_rng(0)
    x, y = (draws.integers(-(2**63), 2**63 - 1, (1, n, width)) for n in (rows, columns))
    product, best = np.zeros((1, rows, columns), np.int64), float("inf")
    for _ in range(9):
        start = time.process_time()
        products_by_columns(x, y, product, 0, columns)
        best = min(best, time.process_time() - start)
    return best


if __name__ == "__main__":
    main()
