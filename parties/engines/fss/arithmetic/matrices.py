"""The server's matrices, which the client gets once, masked, in the set-up."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from parties.engines.base import Shapes
from parties.engines.fss.arithmetic import ring
from parties.engines.fss.arithmetic.values import Additive, Masked
from parties.engines.fss.randomness.source import DEALER, SERVER
from parties.metering.meter import StageMeter

_CHUNK = {"cpu": 1 << 18, "cuda": 1 << 22}  # elements; those of a CPU fit its cache


class ServerMatrix:
    """A matrix W [in, out] of the server.

    In the set-up the server sends W - b to the client, with b expanded from the seed that server and dealer share. A
    product with a masked value X = x + r is then

        z_1 = (X - r_1) W - c_1        z_0 = -r_0 (W - b) - c_0        c = r_0 b

    Each party reads one matrix, and neither learns the other's secret: the server sees X and its own share of the mask,
    the client sees W - b. The fixed operand is opened once, as in Turbospeedz (ACNS 2019).

    Args:
        transposed: [out, in], int64, contiguous, 16 fraction bits: W at the server, W - b at the client, b at the
            dealer.
    """

    def __init__(self, transposed: Tensor) -> None:
        self.transposed = transposed

    def apply(self, x: Masked, limit: float, columns: int | None = None) -> Additive:
        """Multiplies [n, in] by the first `columns` of W, or by all: [n, out].

        No round, 8 offline bytes per output, to the server.
        """
        source, scale, transposed = x.source, x.scale + ring.FRACTION_BITS, self.transposed[:columns]
        shape = (x.shape[0], transposed.shape[0])
        if source.rank == DEALER:
            source.deal(shape, lambda: ring.vector_matrix(x.public, transposed))
            return Additive(source, source.placeholder(shape), scale, limit)
        vector = x.public - x.mask if source.rank == SERVER else -x.mask
        correction = source.deal(shape, lambda: torch.empty(0)).share
        return Additive(source, ring.vector_matrix(vector, transposed) - correction, scale, limit)


def is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a parameter is a matrix that activations are multiplied with."""
    return len(shape) == 2 and name != "positions" and math.prod(shape) > 0


def matrices_in(shapes: Shapes, meter: StageMeter) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields name and shape of each matrix to load it; the meter shows the share of their elements that is loaded."""
    found = {name: shape for name, shape in shapes.items() if is_matrix(name, shape)}
    total, loaded = sum(map(math.prod, found.values())), 0
    for name, shape in found.items():
        meter.put("mpcbench_loaded_ratio", loaded / total)
        yield name, shape
        loaded += math.prod(shape)
    meter.put("mpcbench_loaded_ratio", None)


def encoded(weight: Tensor, device: torch.device) -> Tensor:
    """Encodes a matrix [in, out] on a device: [out, in], int64. It does so in chunks: a GPU can be almost full.

    Args:
        weight: Real numbers, on the CPU.
        device: Where it is encoded and stays.
    """
    transposed = torch.empty(weight.shape[::-1], dtype=torch.int64, device=device)
    dim = 1 if device.type == "cpu" else 0  # a CPU writes whole rows of the result; a GPU gets whole rows of the weight
    count = max(1, _CHUNK[device.type] // weight.shape[1 - dim])
    for chunk, place in zip(torch.split(weight, count, dim), torch.split(transposed, count, 1 - dim), strict=True):
        place.copy_(ring.encode(chunk.to(device)).T)
    return transposed
