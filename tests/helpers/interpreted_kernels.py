"""Runs the kernels on a few inputs in Triton's interpreter; started by `test_kernels`."""

import numpy as np
import torch

from parties.engines.fss.arithmetic import masking
from parties.engines.fss.functions.tables import Tables, curves_on
from parties.engines.fss.kernels import cells as cell_kernels
from parties.engines.fss.kernels import comparison, first_launches, keystream, look_ups, matrix_products, prefixes
from parties.engines.fss.kernels.cell_trees import CELLS
from parties.engines.fss.kernels.prefix_trees import ENTRIES
from parties.engines.fss.randomness import cell_dpf, dcf, payload_dcf, prefix_dpf
from parties.engines.keystream import SEED_BYTES, Keystream
from tests.helpers.comparisons import numbers, seeds


def main() -> None:
    """Compares with the CPU; an AssertionError ends the process with status 1."""
    first_launches.launch_others(torch.device("cpu"))
    first_launches.launch_products(torch.device("cpu"), (16, 17))
    dice = np.random.default_rng(0)
    for width, name in zip((1, 5, 7, 8, 33, 63), b"abacab", strict=True):  # each kernel under several sessions' keys
        permutation = dcf.Permutation(bytes([name]) * dcf.PERMUTATION_KEY_BYTES)
        alpha, x, own = numbers(width, 20), numbers(width, 20, 3, seed=1), seeds(20)
        x[:5, 1] = alpha[:5]
        key = dcf.generate(permutation, alpha, width, *own)
        constants = comparison.constants(permutation.key, x.device)
        for party, seed in enumerate(own):
            share = torch.empty(x.shape, dtype=torch.uint8)
            comparison.evaluate(x, seed, key, *constants, share, party, width)
            assert torch.equal(share, dcf.evaluate(permutation, party, x, width, seed, key))
    for width, lanes in ((1, 1), (5, 1), (3, 2), (4, 3)):
        alpha, x, own = numbers(width, 20), numbers(width, 20, 3, seed=1), seeds(20)
        beta, above = numbers(32, 20, lanes), payload_dcf.levels(width, lanes)
        key, constants = (
            payload_dcf.generate(permutation, alpha, beta, width, *own),
            comparison.constants(permutation.key, x.device),
        )
        for party, seed in enumerate(own):
            share = torch.empty(20, 3, lanes, dtype=torch.int64)
            comparison.evaluate_payload(x, seed, key, *constants, share, party, width, above)
            assert torch.equal(share, payload_dcf.evaluate(permutation, party, x, width, lanes, seed, key))
    for levels in (1, 3):
        mask, x, own = numbers(63, 5), numbers(63, 5, seed=1), seeds(5)
        cells = torch.from_numpy(dice.integers(-(2**63), 2**63, (levels, ENTRIES, 2)))
        key = prefix_dpf.generate(permutation, mask, cells, 20, *own)
        for party, seed in enumerate(own):
            share = torch.empty(5, 2 * levels, dtype=torch.int64)
            prefixes.evaluate(x, seed, key, *comparison.constants(permutation.key, x.device), share, party, 20)
            share = share.sum(1)
            assert torch.equal(share, prefix_dpf.evaluate(permutation, party, x, 20, levels, seed, key))
    alpha, places, own = numbers(7, 15), numbers(7, 3, 5, seed=1), seeds(15)
    key = cell_dpf.generate(permutation, alpha, *own)
    for party, seed in enumerate(own):
        counts = torch.empty(3, CELLS, dtype=torch.int64)
        cell_kernels.evaluate(places, seed, key, *comparison.constants(permutation.key, places.device), counts, party)
        counts <<= cell_dpf.SPARE_BITS
        assert torch.equal(counts, cell_dpf.evaluate(permutation, party, places, seed, key))
    for n, columns, rows in ((1, 576, 9), (1, 7, 5), (3, 33, 17), (16, 130, 65), (70, 40, 3)):
        left, right = (torch.randint(-(2**63), 2**63 - 1, (size, columns)) for size in (n, rows))
        product = torch.empty(n, rows, dtype=torch.int64)
        matrix_products.vector_matrix(left, right, product)
        assert torch.equal(product, left @ right.T)
    for batch, n, inner, m in ((1, 1, 7, 5), (3, 17, 33, 2)):
        x, y = torch.randint(-(2**63), 2**63 - 1, (n, inner)), torch.randint(-(2**63), 2**63 - 1, (batch, m, inner))
        product = torch.empty(batch, n, m, dtype=torch.int64)
        matrix_products.matmul(x.expand(batch, -1, -1), y.transpose(1, 2), product)
        assert torch.equal(product, x @ y.transpose(1, 2))
    for count, rows, length, n in ((2, 1, 2048, 3), (1, 4, 64, 8), (2, 3, 256, 35)):
        values = dice.integers(-(2**63), 2**63, (count, rows, length))
        values[:, :, length // 4 : length // 2], values[:, 1:, length // 2 :] = 0, 3 * np.arange(length // 2)
        tables = Tables(values)
        turn = torch.from_numpy(dice.integers(0, length, n))
        bits = torch.from_numpy(dice.integers(0, 256, (n, length // 8), dtype=np.uint8))
        sums = torch.empty(count, n, dtype=torch.int64)
        for ways in look_ups.WAYS:
            look_ups.launch(*curves_on(turn.device, tables), bits, turn, sums, ways)
            assert torch.equal(sums, tables.sums(turn, bits))
    stream = Keystream(bytes(range(SEED_BYTES)))
    for epoch, first, count in ((0, 0, 300), (2**40 + 3, 7, 5)):
        stream.begin(epoch)
        filled = torch.zeros(count, dtype=torch.int64)
        keystream.DeviceKeystream(bytes(range(SEED_BYTES)), filled.device).fill(torch.tensor([epoch, first]), filled)
        assert torch.equal(filled, stream.words((first + count,))[first:])
        drawn = keystream.DeviceKeystream(bytes(range(SEED_BYTES)), filled.device)
        drawn.begin(epoch)
        stream.begin(epoch)
        shapes: tuple[tuple[int, ...], ...] = ((3,), (), (0, 2), (2, 3))
        for size, dtype in zip(shapes, (torch.uint8, *[torch.int64] * 3), strict=True):
            assert torch.equal(drawn.draw(size, dtype), stream.draw(size, dtype))
    stream.begin(0)
    masks, plain = keystream.DeviceKeystream(bytes(range(SEED_BYTES)), torch.device("cpu")), torch.arange(35)
    for _ in range(2):  # the second time from the middle of a block
        found = masking.masked(plain.view(7, 5), masks, torch.zeros(40, dtype=torch.int64))
        assert torch.equal(found, plain.view(7, 5) - stream.words((7, 5)))


if __name__ == "__main__":
    main()
