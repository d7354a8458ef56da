"""Functions of a positive number over many orders of magnitude: norms and reciprocals. One round.

The range is cut into windows of a factor of four. Every window looks its own table up, at the eleven bits of the number
that matter in it, and corrects to first order; comparisons with public powers of four say which window counts. Look-ups
and comparisons share one round, and the choice is made in the products. (Comparisons with all powers at once: SIRNN,
Rathee et al., IEEE S&P 2021, finds the leading bit for the same purpose, in more rounds.)
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parties.engines.fss.compare import negative
from parties.engines.fss.gates import open_, product, switched, xor_bits
from parties.engines.fss.tables import Tables, digit, look_up
from parties.engines.fss.values import Additive, Masked
from parties.program import Program, parallel

Reals = NDArray[np.float64]
_WIDTH = 11
_REST_BITS = 10
LOWEST = 9 + _REST_BITS  # no number below 2^19 can be looked up with that many bits under a cell
HIGHEST = 62


@dataclass(frozen=True)
class Octaves:
    """A smooth function tabulated over windows of a factor of four.

    Attributes:
        function: of the real number.
        low, high: the integers behind the numbers lie in [2^low, 2^high); below, the function is that of the first
            window as far as its table goes.
        scale: fraction bits of the numbers.
        out_scale: fraction bits of the result.
        limit: bound of the result.
    """

    function: Callable[[Reals], Reals]
    low: int
    high: int
    scale: int
    out_scale: int
    limit: float

    def __post_init__(self) -> None:
        """Checks that the windows fit into the ring.

        Raises:
            ValueError: they do not.
        """
        if not LOWEST <= self.low < self.high <= HIGHEST:
            raise ValueError(f"numbers from 2^{self.low} to 2^{self.high}; allowed are 2^{LOWEST} to 2^{HIGHEST}")

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Bits below a cell of each window."""
        return tuple(range(self.low + 2 - _WIDTH, self.high - _WIDTH + 1, 2)) + (
            (self.high + 1 - _WIDTH,) if (self.high - self.low) % 2 else ()
        )

    @cached_property
    def edges(self) -> Tensor:
        """From which integer on the next window counts; one cell less than the table holds, for places one off."""
        return torch.tensor([((1 << _WIDTH) - 1) << start for start in self.starts[:-1]], dtype=torch.int64)

    @cached_property
    def tables(self) -> Tables:
        """Values, and slopes per 2^-10 of a cell, for each window: [2, windows, 2^11]."""
        starts = np.array(self.starts)[:, None]
        cells = np.arange(1 << _WIDTH)[None] * 2.0 ** (starts - self.scale)
        cell = 2.0 ** (starts - self.scale)
        at = np.maximum(cells, cell / 2)
        slope = (self.function(at * (1 + 1e-5)) - self.function(at * (1 - 1e-5))) / (at * 2e-5) * cell
        values = np.stack([self.function(at), slope / 2.0**_REST_BITS])
        return Tables(np.rint(values * 2.0**self.out_scale).astype(np.int64))

    def apply(self, x: Masked) -> Program[Additive]:
        """The function of each of x [...], whose integers are below 2^62.

        1 round and that of w - 1 signs of 62 bits, which come first; with w windows 16 w + (w - 1) / 8 online bytes
        each way, and beside the signs' 264 w + 192 (w - 1) + 48 offline bytes, to the server, an element.
        """
        source, windows = x.source, len(self.starts)
        shifts = torch.tensor(self.starts) - _REST_BITS
        public, mask = (part.unsqueeze(-1) >> shifts for part in (x.public, x.mask))
        shifted = Masked(source, public, mask, 0, 1.0)
        found = look_up(source, public, mask, _REST_BITS, self.tables)
        rest = digit(shifted, 0, _REST_BITS)
        spread = x.reshape(*x.shape, 1).expand(*x.shape, windows - 1)
        below = yield from negative(_above(spread, self.edges))
        opened, bits = yield from parallel(open_(found.signed), xor_bits(source, below))
        shape, sign = found.sign
        total = self._corrected(opened, rest, shape, sign, slice(windows - 1, windows), None).sum(-1)
        for part, other in ((slice(0, windows - 1), 1), (slice(1, windows), -1)):
            total = total + self._corrected(opened, rest, shape, sign, part, bits).sum(-1).times(other)
        return Additive(source, total.share, self.out_scale, self.limit)

    @staticmethod
    def _corrected(
        opened: Masked,
        rest: Masked,
        shape: tuple[int, ...],
        sign: Callable[[], Tensor],
        part: slice,
        bits: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None,
    ) -> Additive:
        """T[i] + slope * rest of some windows, each times its bit if there are bits."""
        where = (..., part)
        cut = (*shape[:-1], part.stop - part.start)
        secret = (cut, lambda: sign()[where])
        factors = ([opened[0][where]], [opened[1][where], rest[where]])
        terms = [product(f, secret) if bits is None else switched(bits, f, secret) for f in factors]
        return Additive(opened.source, terms[0].share + terms[1].share, 0, 2.0**HIGHEST)


def _above(x: Masked, edges: Tensor) -> Masked:
    """X - edges, as integers."""
    moved = x.rescaled(0).plus(-edges.double())
    return moved.bounded(2.0**HIGHEST)
