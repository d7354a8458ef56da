"""Launches each Triton kernel once on small inputs, so that it is compiled, or loaded, before a timed phase begins.

What a kernel is compiled for are its constants, and the arguments that it may be specialised on. Each function below
covers what occurs; a test on a GPU asserts that decoding compiles nothing else.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from parties.engines.fss.kernels import (
    cells,
    comparison,
    keystream,
    look_ups,
    matrix_products,
    prefixes,
    table_aes,
)
from parties.engines.fss.kernels.cell_trees import CELLS, KEY_BYTES
from parties.engines.fss.kernels.few_points import FEW
from parties.engines.fss.kernels.prefix_trees import ENTRIES
from parties.engines.fss.kernels.table_sums import FIELDS, PART

_LANES = (1, 3)  # of payloads: a count's, and those of the tournament for the largest logit
_SOME_ROWS = (1, 2, 17, 33)  # one for each kernel of products with a matrix
_FEW_ROWS = (1, 2, 3, 5)  # the same of other products


def launch_products(device: torch.device, columns: Iterable[int]) -> None:
    """Compiles the products with the server's matrices, and the keystream that masks them.

    Args:
        device: A GPU.
        columns: Columns of the matrices.
    """
    stream = keystream.DeviceKeystream(bytes(32), device)
    stream.fill(_words(device, 2), stream.words((2,)))
    for inner in sorted({1 if count == 1 else 16 + (count % 16 > 0) for count in columns}):  # as Triton distinguishes
        for n in _SOME_ROWS:
            left, product = _words(device, n, inner), _words(device, n, 1)
            matrix_products.vector_matrix(left, _words(device, 1, inner), product)
    _finish(device)


def launch_others(device: torch.device) -> None:
    """Compiles the other kernels of a computing party.

    Args:
        device: A GPU.
    """
    right = _words(device, 1, 2, 2)
    for n in _FEW_ROWS:
        for y in (right, right.transpose(1, 2)):
            matrix_products.matmul(_words(device, 1, n, 2), y, _words(device, 1, n, 2))
    for ways in look_ups.WAYS:
        curves, bits = _words(device, 1, 1, 1, PART), _octets(device, 1, PART // 8)
        look_ups.launch(curves, _words(device, 1, 1, FIELDS), bits, _words(device, 1), _words(device, 1, 1), ways)
    _launch_trees(device)
    _finish(device)


def _launch_trees(device: torch.device) -> None:
    """Compiles what evaluates keys: for a few points, which have a program each, and for many."""
    aes, seed = (table_aes.columns(device), table_aes.schedule(bytes(16), device)), _octets(device, 1, 16)
    for points in (1, FEW + 1):
        x = _words(device, 1, points)
        comparison.evaluate(x, seed, _octets(device, 1, 1, 16), *aes, _octets(device, 1, points), 0, 1)
        for lanes in _LANES:
            key, shares = _octets(device, 16), _words(device, 1, points, lanes)
            comparison.evaluate_payload(x, seed, key, *aes, shares, 0, 1, 0)
    for n in (1, FEW // 2 + 1):
        x, seeds, key = _words(device, n), _octets(device, n, 16), _octets(device, n * 16 * (1 + ENTRIES))
        prefixes.evaluate(x, seeds, key, *aes, _words(device, n, 2), 0, 40)
    cells.evaluate(_words(device, 1, 1), seed, _octets(device, KEY_BYTES), *aes, _words(device, 1, CELLS), 0)


def _words(device: torch.device, *shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int64, device=device)


def _octets(device: torch.device, *shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.uint8, device=device)


def _finish(device: torch.device) -> None:
    """Waits, so that what fails does so here."""
    if device.type == "cuda":
        torch.cuda.synchronize()
