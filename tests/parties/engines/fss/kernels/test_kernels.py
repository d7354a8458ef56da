"""GPU kernels give the results of the CPU, bit for bit.

Without a GPU the same kernels run in Triton's interpreter, where Triton is installed.
"""

import os
import subprocess
import sys

import pytest
import torch

from parties.engines.fss.kernels.prefix_trees import ENTRIES
from parties.engines.fss.randomness import cell_dpf, dcf, payload_dcf, prefix_dpf
from parties.engines.keystream import SEED_BYTES, Keystream
from tests.helpers.comparisons import numbers as numbers_below
from tests.helpers.comparisons import seeds
from tests.helpers.needs import needs
from tests.helpers.paths import HELPERS

CUDA = torch.cuda.is_available()
PERMUTATION = dcf.Permutation(os.urandom(dcf.PERMUTATION_KEY_BYTES))
EDGES = [0, 1, -1, 2**63 - 1, -(2**63), 2**62, -(2**62)]
# SmolLM2-135M and GPT-2, and shapes that fit no tile
SHAPES = [
    (576, 960),
    (576, 576),
    (576, 3072),
    (1536, 576),
    (768, 2304),
    (3072, 768),
    (7, 5),
    (33, 17),
    (1, 1),
    (129, 1),
]


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    """Draws uniform ring elements, including extreme ones."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(-(2**63), 2**63 - 1, shape, generator=generator)
    flat = drawn.view(-1)
    edges = torch.tensor(EDGES)[: flat.numel()]
    flat[: edges.numel()] = edges
    return drawn


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [*SHAPES, (576, 49_152)])
@pytest.mark.parametrize("n", [1, 2, 16, 17, 128])
def test_products_wrap_around_like_those_of_the_cpu(shape: tuple[int, int], n: int) -> None:
    from parties.engines.fss.arithmetic import ring

    columns, rows = shape
    x, matrix = numbers(n, columns), numbers(rows, columns, seed=1)
    assert torch.equal(ring.vector_matrix(x, matrix.cuda()), ring.vector_matrix(x, matrix))


@pytest.mark.gpu
@pytest.mark.parametrize("width", range(1, 64))
def test_keys_evaluate_like_on_the_cpu_at_every_width(width: int) -> None:
    alpha, x = numbers_below(width, 1000), numbers_below(width, 1000, 3, seed=1)
    x[:200, 1] = alpha[:200]
    x[200:204], alpha[204:208] = 0, 2**width - 1
    own = seeds(1000)
    key = dcf.generate(PERMUTATION, alpha, width, *own)
    for party, seed in enumerate(own):
        share = dcf.evaluate(PERMUTATION, party, x.cuda(), width, seed.cuda(), key.cuda()).cpu()
        assert torch.equal(share, dcf.evaluate(PERMUTATION, party, x, width, seed, key))


@pytest.mark.gpu
@pytest.mark.parametrize("lanes", [1, 2, 3, 4])
@pytest.mark.parametrize("width", [1, 2, 3, 24, 62])
def test_payloads_are_those_of_the_cpu(width: int, lanes: int) -> None:
    alpha, x, beta = numbers_below(width, 1000), numbers_below(width, 1000, 5, seed=1), numbers_below(32, 1000, lanes)
    x[:200, 1] = alpha[:200]
    own = seeds(1000)
    key = payload_dcf.generate(PERMUTATION, alpha, beta, width, *own)
    for party, seed in enumerate(own):
        share = payload_dcf.evaluate(PERMUTATION, party, x.cuda(), width, lanes, seed.cuda(), key.cuda()).cpu()
        assert torch.equal(share, payload_dcf.evaluate(PERMUTATION, party, x, width, lanes, seed, key))


@pytest.mark.gpu
@pytest.mark.parametrize("tables", [1, 16, 23])
def test_tables_by_prefix_are_those_of_the_cpu(tables: int) -> None:
    mask, x, own = numbers(8), numbers(8, seed=1), seeds(8)
    cells, lowest = numbers(tables, ENTRIES, 2), 62 - 2 * tables
    key = prefix_dpf.generate(PERMUTATION, mask, cells, lowest, *own)
    for party, seed in enumerate(own):
        share = prefix_dpf.evaluate(PERMUTATION, party, x.cuda(), lowest, tables, seed.cuda(), key.cuda()).cpu()
        assert torch.equal(share, prefix_dpf.evaluate(PERMUTATION, party, x, lowest, tables, seed, key))


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(1, 1), (9, 1024), (3, 131)])
def test_counts_of_cells_are_those_of_the_cpu(shape: tuple[int, int]) -> None:
    count = shape[0] * shape[1]
    alpha, places, own = numbers_below(7, count), numbers_below(7, *shape, seed=1), seeds(count)
    key = cell_dpf.generate(PERMUTATION, alpha, *own)
    for party, seed in enumerate(own):
        counts = cell_dpf.evaluate(PERMUTATION, party, places.cuda(), seed.cuda(), key.cuda()).cpu()
        assert torch.equal(counts, cell_dpf.evaluate(PERMUTATION, party, places, seed, key))


@pytest.mark.gpu
@pytest.mark.parametrize("epoch", [0, 1, 2**32 + 7, 2**63 - 1])
def test_the_stream_of_a_seed_is_that_of_the_cpu_from_every_word(epoch: int) -> None:
    from parties.engines.fss.kernels.keystream import DeviceKeystream

    seed = bytes(range(SEED_BYTES))
    stream, device = Keystream(seed), DeviceKeystream(seed, torch.device("cuda", 0))
    stream.begin(epoch)
    expected = stream.words((3000,))
    for first, count in ((0, 3000), (1, 1), (1, 511), (2, 256), (257, 2000), (5, 0)):
        words = torch.zeros(count + 1, dtype=torch.int64, device="cuda")
        device.fill(torch.tensor([epoch, first], device="cuda"), words[:count])
        assert torch.equal(words[:count].cpu(), expected[first : first + count])
        assert words[count] == 0


@needs("no-gpu", "triton")  # Triton's interpreter instead of a GPU; the tests above run the kernels on one
def test_in_the_interpreter_the_kernels_give_the_results_of_the_cpu() -> None:
    # a separate process: Triton decides at import whether it interprets
    done = subprocess.run(
        [sys.executable, HELPERS / "interpreted_kernels.py"],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
