"""Windowed look-ups: functions of a positive number over many orders of magnitude, for norms.

The range is cut into windows of a factor of four. Each window has its own table, indexed by the leading bits of the
window's numbers, with a first-order correction. (SIRNN, Rathee et al., IEEE S&P 2021, finds the leading bit for the
same range reduction.) Which form is used is public, and both keep the same error:

* A few numbers with `dcf`: no round, by a key of 66 kB per number that holds all tables (`prefix_dpf`).
* Many numbers, or `prefix`: one round, with two kilobytes per number. All windows are looked up, comparisons with
  public powers of four determine the window, and it is selected in the products.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parties.decoding.program import Program, parallel
from parties.engines.fss.arithmetic.gates import open_, xor_bits
from parties.engines.fss.arithmetic.multiplication import Secret, select, sum_of_products
from parties.engines.fss.arithmetic.values import Additive, Masked
from parties.engines.fss.compare.signs import below_edges
from parties.engines.fss.functions.tables import Tables, digit, look_up
from parties.engines.fss.kernels.prefix_trees import CELL_BITS, ENTRIES, REST_BITS, STEP
from parties.engines.fss.randomness import prefix_dpf
from parties.engines.fss.randomness.source import DEALER, Bits
from parties.engines.fss.recording.tracer import untraced
from parties.engines.limits import FEW_ROWS

Reals = NDArray[np.float64]
_WIDTH = 11
_REST_BITS = 10
LOWEST = 9 + _REST_BITS  # a cell needs that many bits below it, so windows start at 2^19
HIGHEST = 62


@dataclass(frozen=True)
class WindowedFunction:
    """A smooth function tabulated over windows of a factor of four.

    Attributes:
        function: The function of a real number.
        low, high: The integers that encode the numbers lie in [2^low, 2^high); below, the table of the first window
            continues to its first cell.
        scale: Fraction bits of the numbers.
        out_scale: Fraction bits of the result.
        limit: Bound of the result.
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
            ValueError: They do not.
        """
        if not LOWEST <= self.low < self.high <= HIGHEST:
            raise ValueError(f"numbers from 2^{self.low} to 2^{self.high}; allowed are 2^{LOWEST} to 2^{HIGHEST}")

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Number of bits below a cell, for each window."""
        return tuple(range(self.low + 2 - _WIDTH, self.high - _WIDTH + 1, 2)) + (
            (self.high + 1 - _WIDTH,) if (self.high - self.low) % 2 else ()
        )

    @cached_property
    def edges(self) -> Tensor:
        """First integers of the next window; one cell less than the table has, since an index may be one off."""
        return torch.tensor([((1 << _WIDTH) - 1) << start for start in self.starts[:-1]], dtype=torch.int64)

    @cached_property
    def tables(self) -> Tables:
        """Values, and slopes per 2^-10 of a cell, of each window: [2, windows, 2^11]."""
        starts = np.array(self.starts)[:, None]
        cells = np.arange(1 << _WIDTH)[None] * 2.0 ** (starts - self.scale)
        cell = 2.0 ** (starts - self.scale)
        at = np.maximum(cells, cell / 2)
        slope = (self.function(at * (1 + 1e-5)) - self.function(at * (1 - 1e-5))) / (at * 2e-5) * cell
        values = np.stack([self.function(at), slope / 2.0**_REST_BITS])
        return Tables(np.rint(values * 2.0**self.out_scale).astype(np.int64))

    @cached_property
    def prefix_tables(self) -> Tensor:
        """Values, and slopes per 2^-8 of a cell, in the first window up to its last cell and in all above it.

        A cell stands for numbers up to one cell away on either side: the secant's slope, and a value halfway between
        the function and the secant. [windows, cells, 2].
        """
        starts = self.low + STEP * np.arange(len(self.starts))[:, None] - (CELL_BITS - STEP)
        cell = 2.0 ** (starts - self.scale)
        at = np.arange(ENTRIES)[None] * cell
        middle, before, after = (self.function(np.maximum(at + step * cell, cell / 2)) for step in (0, -1, 1))
        values = np.stack([(2 * middle + before + after) / 4, (after - before) / 2.0 ** (1 + REST_BITS)], -1)
        with untraced():
            return torch.from_numpy(np.rint(values * 2.0**self.out_scale).astype(np.int64))

    def apply(self, x: Masked) -> Program[Additive]:
        """Applies the function to x [...], whose integers are below 2^62; error relative 2^-12 where x >= 2^low.

        With w windows, for at most `FEW_ROWS` numbers and `dcf`: no round; per element 16 (258 w - 1) offline bytes to
        each party. Else 1 round after those of `below_edges` for w - 1 edges, of 62 bits; per element
        16 w + (w - 1) / 8 online bytes each way and, in addition to the comparisons, 304 w + 80 (w - 1) offline bytes,
        to the server.
        """
        if x.source.comparison == "dcf" and x.public.numel() <= FEW_ROWS:
            return self._at_once(x)
        return (yield from self._in_a_round(x))

    def _at_once(self, x: Masked) -> Additive:
        source, lowest, windows = x.source, self.low + STEP, len(self.starts)
        source.note(lowest)
        source.note(windows)
        mask, seeds = x.mask.reshape(-1), source.seeds(x.public.numel())
        key = source.broadcast(
            (len(mask) * prefix_dpf.key_bytes(windows),),
            lambda: prefix_dpf.generate(source.permutation, mask, self.prefix_tables, lowest, *seeds),
        )
        source.evaluated(len(mask) * prefix_dpf.hashes(windows))
        if source.rank == DEALER:
            share = source.placeholder(x.shape)
        else:
            public = x.public.reshape(-1)
            share = prefix_dpf.evaluate(source.permutation, source.rank, public, lowest, windows, seeds[0], key)
        return Additive(source, share.reshape(x.shape), self.out_scale, self.limit)

    def _in_a_round(self, x: Masked) -> Program[Additive]:
        source = x.source
        shifts = torch.tensor(self.starts, device=source.device) - _REST_BITS
        public, mask = (part.unsqueeze(-1) >> shifts for part in (x.public, x.mask))
        shifted = Masked(source, public, mask, 0, 1.0, x.epoch)
        found = look_up(source, public, mask, _REST_BITS, self.tables)
        rest = digit(shifted, 0, _REST_BITS)
        below = yield from below_edges(x.rescaled(0).bounded(2.0**HIGHEST), self.edges)
        opened, bits = yield from parallel(open_(found.signed), xor_bits(source, below))
        total = self._select_window(opened, rest, found.sign, bits)
        return Additive(source, total.share, self.out_scale, self.limit)

    @staticmethod
    def _select_window(opened: Masked, rest: Masked, sign: Secret, bits: tuple[Bits, Bits]) -> Additive:
        """Computes T[i] + slope * rest of the window in which x lies.

        It is f_last + sum over i of b_i (f_i - f_(i + 1)), with b_i = [x is below edge i].
        """
        values = sum_of_products([[opened[0]], [opened[1], rest]], sign)
        shape, whole = sign
        last = shape[-1] - 1
        pairs = torch.stack([torch.arange(last), torch.arange(last) + 1])  # [2, edges]
        terms = [[opened[0][..., pairs]], [opened[1][..., pairs], rest[..., pairs]]]
        masked, beta = (part[..., None, :] for part in bits)
        secret = ((*shape[:-1], *pairs.shape), lambda: whole()[..., pairs])
        steps = select((masked, beta), terms, secret, values[..., pairs])
        return values[..., last] + (steps[..., 0, :] - steps[..., 1, :]).sum(-1)
