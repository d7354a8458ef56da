"""Functions by one look-up of value and slope: f(x) = T0[i] + T1[i] rest, optionally times another number.

The result is a sum of two products with the look-up's sign. A further factor makes them products of three and four
masked numbers, and costs no round of its own.
"""

from dataclasses import dataclass

from parties.decoding.program import Program
from parties.engines.fss.arithmetic.gates import open_
from parties.engines.fss.arithmetic.multiplication import Secret, sum_of_products
from parties.engines.fss.arithmetic.values import Additive, Masked
from parties.engines.fss.functions.tables import Tables, digit, look_up


@dataclass(frozen=True)
class Expansion:
    """What was found for each x: value and slope at its cell, both times a sign, and the rest of x."""

    value: Masked
    slope: Masked
    rest: Masked
    sign: Secret

    def times(self, *factors: Masked, limit: float) -> Additive:
        """Computes f(x), or f(x) times a factor that x broadcasts to: no round; see `FirstOrder.look_up` for bytes.

        Args:
            factors: Masked numbers, at most one.
            limit: Bound of the result.
        """
        return sum_of_products([[self.value, *factors], [self.slope, self.rest, *factors]], self.sign, limit)


@dataclass(frozen=True, eq=False)
class FirstOrder:
    """A function on cells of equal width.

    Attributes:
        tables: Values and slopes at the cells, [2, 1, cells].
        cell_scale: Cells are 2^-cell_scale wide.
        rest_scale: Fraction bits of the rest, at most those of x.
        scale: Fraction bits of the values; the slopes have `scale - rest_scale`.
    """

    tables: Tables
    cell_scale: int
    rest_scale: int
    scale: int

    def look_up(self, x: Masked) -> Program[Expansion]:
        """Opens value and slope. 1 round.

        With cells numbered in c bits 16 online bytes each way and 2^c / 8 + 48 offline bytes, to the server, per
        element of x, including those of `Expansion.times`; with a factor 40 more per element of the factor.
        """
        found = look_up(x.source, x.public, x.mask, x.scale - self.cell_scale, self.tables)
        rest = digit(x, x.scale - self.rest_scale, self.rest_scale - self.cell_scale)
        opened = yield from open_(found.signed)
        value, slope = opened[0].rescaled(self.scale), opened[1].rescaled(self.scale - self.rest_scale)
        return Expansion(value, slope, rest, found.sign)
