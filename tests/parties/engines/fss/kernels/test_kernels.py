"""GPU kernels give the results of the CPU, bit for bit.

Without a GPU the same kernels run in Triton's interpreter, where Triton is installed.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from parties.engines.fss.randomness import dcf
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
@pytest.mark.parametrize("n", [1, 2, 17, 128])
def test_products_wrap_around_like_those_of_the_cpu(shape: tuple[int, int], n: int) -> None:
    from parties.engines.fss.arithmetic import ring

    columns, rows = shape
    x, matrix = numbers(n, columns), numbers(rows, columns, seed=1)
    assert torch.equal(ring.vector_matrix(x, matrix.cuda()), ring.vector_matrix(x, matrix))


@pytest.mark.gpu
@pytest.mark.parametrize("width", range(1, 64))
def test_keys_evaluate_like_on_the_cpu_at_every_width(width: int) -> None:
    dice = np.random.default_rng(width)
    alpha, x = (dice.integers(0, 2**width, 1000, dtype=np.uint64) for _ in range(2))
    x[:200] = alpha[:200]
    x[200:204], alpha[204:208] = 0, 2**width - 1
    seeds = [dice.integers(0, 256, (1000, 16), dtype=np.uint8) for _ in range(2)]
    key = dcf.generate(PERMUTATION, alpha, width, *seeds)
    shares = [
        dcf.evaluate_on(PERMUTATION, party, on_gpu(x.view(np.int64)), width, on_gpu(seeds[party]), on_gpu(key))
        .cpu()
        .numpy()
        for party in (0, 1)
    ]
    for party, share in enumerate(shares):
        assert np.array_equal(share, dcf.evaluate(PERMUTATION, party, x, width, seeds[party], key))
    assert np.array_equal(shares[0] ^ shares[1], x < alpha)


def on_gpu(array: "np.ndarray[tuple[int, ...], np.dtype[np.uint8 | np.int64]]") -> torch.Tensor:
    return torch.from_numpy(array).cuda()


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
