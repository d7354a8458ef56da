"""Runs the kernels on a few inputs in Triton's interpreter; started by `test_kernels`."""

from typing import Any

import numpy as np
import torch

from parties.engines.fss.functions.tables import Tables, _mirrored
from parties.engines.fss.kernels import comparison, look_ups, matrix_products
from parties.engines.fss.randomness import dcf


def main() -> None:
    """Compares with the CPU; an AssertionError ends the process with status 1."""
    dice = np.random.default_rng(0)
    x: Any
    for width, name in zip((1, 5, 7, 8, 33, 63), b"abacab", strict=True):  # each kernel under several sessions' keys
        permutation = dcf.Permutation(bytes([name]) * dcf.PERMUTATION_KEY_BYTES)
        alpha, x = (dice.integers(0, 2**width, 20, dtype=np.uint64) for _ in range(2))
        x[:5] = alpha[:5]
        seeds = [dice.integers(0, 256, (20, 16), dtype=np.uint8) for _ in range(2)]
        key = dcf.generate(permutation, alpha, width, *seeds)
        for party, seed in enumerate(seeds):
            share = comparison.evaluate(
                party, words(x), width, words(seed), words(key), permutation.key, dcf.LEAF_LEVELS
            )
            assert np.array_equal(share.numpy(), dcf.evaluate(permutation, party, x, width, seed, key))
    for n, columns, rows in ((1, 576, 9), (1, 7, 5), (3, 33, 17)):
        left, right = (torch.randint(-(2**63), 2**63 - 1, (size, columns)) for size in (n, rows))
        assert torch.equal(matrix_products.vector_matrix(left, right), left @ right.T)
    for batch, n, inner, m in ((1, 1, 7, 5), (3, 17, 33, 2)):
        x, y = torch.randint(-(2**63), 2**63 - 1, (n, inner)), torch.randint(-(2**63), 2**63 - 1, (batch, m, inner))
        assert torch.equal(matrix_products.matmul(x, y.transpose(1, 2)), x @ y.transpose(1, 2))
    for count, rows, length, n in ((2, 1, 2048, 3), (1, 4, 64, 8)):
        tables = Tables(dice.integers(-(2**63), 2**63, (count, rows, length)))
        turn = torch.from_numpy(dice.integers(0, length, n))
        bits = torch.from_numpy(dice.integers(0, 256, (n, length // 8), dtype=np.uint8))
        sums = look_ups.table_sums(_mirrored(tables, turn.device), bits, turn)
        assert torch.equal(sums, tables.sums(turn, bits))


def words(array: "np.ndarray[tuple[int, ...], np.dtype[np.uint8 | np.uint64]]") -> torch.Tensor:
    """The same memory as int64."""
    return torch.from_numpy(np.ascontiguousarray(array).view(np.int64))


if __name__ == "__main__":
    main()
