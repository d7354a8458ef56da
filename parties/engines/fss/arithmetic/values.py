"""The engine's values, masked or additive, and local linear work on both."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from parties.engines.fss.arithmetic import ring
from parties.engines.fss.randomness.constants import Known
from parties.engines.fss.randomness.source import CLIENT, DEALER, Source
from parties.engines.fss.recording.tracer import untraced

Local = Callable[[Tensor], Tensor]


class Number(ABC):
    """A tensor of secret fixed-point numbers. Linear work with public numbers is local.

    Attributes:
        source: This party's correlated randomness.
        scale: Fraction bits.
        limit: Declared bound: all |x| stay below it.
    """

    source: Source
    scale: int
    limit: float

    @property
    @abstractmethod
    def shape(self) -> torch.Size:
        """Public shape."""

    @abstractmethod
    def map(self, function: Local, scale: int, limit: float) -> Self:
        """Applies a function that is linear over Z_2^64 and the same at every party."""

    @abstractmethod
    def _with(self, other: Self, function: Callable[[Tensor, Tensor], Tensor]) -> Self:
        """Adds or subtracts a value of the same scale."""

    @property
    def bits(self) -> int:
        """The least k with |integer| < 2^k, by the declared bound."""
        return ring.magnitude_bits(self.limit, self.scale)

    def upscaled(self, scale: int) -> Self:
        """Returns the same numbers with more fraction bits."""
        if scale == self.scale:
            return self
        return self.map(lambda t: t << (scale - self.scale), scale, self.limit)

    def times(self, integer: int | Tensor) -> Self:
        """Multiplies by public integers; the scale stays."""
        factor = largest(integer) if isinstance(integer, Tensor) else float(abs(integer))
        self.source.note(integer)
        return self.map(lambda t: t * _on(integer, t), self.scale, max(self.limit * factor, 2.0**-ring.FRACTION_BITS))

    def __add__(self, other: Self) -> Self:
        scale = max(self.scale, other.scale)
        return self.upscaled(scale)._with(other.upscaled(scale), torch.add)

    def __sub__(self, other: Self) -> Self:
        return self + -other

    def __neg__(self) -> Self:
        return self.map(torch.neg, self.scale, self.limit)

    def __mul__(self, public: float | Tensor | Known) -> Self:
        if isinstance(public, Known):
            self.source.note(public.integers)
            limit = max(self.limit * public.limit, 2.0**-ring.FRACTION_BITS)
            return self.map(lambda t: t * _on(public.integers, t), self.scale + public.scale, limit)
        if not isinstance(public, Tensor):
            integer, bits = ring.shortest(public)
            self.source.note(integer)
            limit = self.limit * max(abs(public), 2.0**-ring.FRACTION_BITS)
            return self.map(lambda t: t * integer, self.scale + bits, limit)
        with untraced():
            encoded = ring.encode(public).to(self.source.device)
        self.source.note(encoded)
        limit = self.limit * max(largest(public), 2.0**-ring.FRACTION_BITS)
        return self.map(lambda t: t * encoded, self.scale + ring.FRACTION_BITS, limit)

    def __getitem__(self, index: Any) -> Self:
        return self._moved(lambda t: t[index])

    def reshape(self, *shape: int) -> Self:
        """Returns the same elements in another shape."""
        return self._moved(lambda t: t.reshape(*shape))

    def transpose(self, first: int, second: int) -> Self:
        """Swaps two axes."""
        return self._moved(lambda t: t.transpose(first, second))

    def expand(self, *shape: int) -> Self:
        """Repeats elements along axes of length 1."""
        return self._moved(lambda t: t.expand(*shape))

    def sum(self, dim: int, keepdim: bool = False) -> Self:
        """Sums over one axis."""
        return self.map(lambda t: t.sum(dim, keepdim=keepdim), self.scale, self.limit * max(1, self.shape[dim]))

    def bounded(self, limit: float) -> Self:
        """Returns the same value with another declared bound."""
        value = self.map(lambda t: t, self.scale, limit)
        self.source.declared(value)
        return value

    def rescaled(self, scale: int) -> Self:
        """Reads the same integers with other fraction bits: a multiplication by a power of two that costs nothing."""
        return self.map(lambda t: t, scale, self.limit * 2.0 ** (self.scale - scale))

    def _moved(self, function: Local) -> Self:
        return self.map(function, self.scale, self.limit)


class Masked(Number):
    """Numbers x of which X = x + r is public; the parties share the mask r, and the dealer knows it.

    A retry draws new masks only for what its segment opens. Each value therefore records the epoch of its masks, and
    `gates.truncate` refuses a value that a retry would not mask afresh. A sum takes the newest epoch of its terms, a
    concatenation the oldest of its parts. (A difference in which the new masks cancel is not detected.)

    Attributes:
        public: X; at the dealer, who does not know X, the client's share of r, which linear work transforms alike.
        mask: This party's share of r; at the dealer r.
        epoch: Every element carries a mask of an opening in this epoch or a later one; `CONSTANT` without a mask.
    """

    CONSTANT = 0

    def __init__(self, source: Source, public: Tensor, mask: Tensor, scale: int, limit: float, epoch: int) -> None:
        self.source, self.public, self.mask, self.scale, self.limit = source, public, mask, scale, limit
        self.epoch = epoch

    @property
    def shape(self) -> torch.Size:
        """Public shape."""
        return self.public.shape

    def map(self, function: Local, scale: int, limit: float) -> "Masked":
        """See `Number.map`; the function is applied to X and to the mask."""
        return Masked(self.source, function(self.public), function(self.mask), scale, limit, self.epoch)

    def _with(self, other: "Masked", function: Callable[[Tensor, Tensor], Tensor]) -> "Masked":
        public, mask = function(self.public, other.public), function(self.mask, other.mask)
        epoch = max(self.epoch, other.epoch)
        return Masked(self.source, public, mask, self.scale, self.limit + other.limit, epoch)

    def plus(self, constant: float | Tensor) -> "Masked":
        """Adds public real numbers."""
        constant = constant if isinstance(constant, Tensor) else torch.tensor(float(constant))
        limit = self.limit + largest(constant)
        shape = np.broadcast_shapes(self.shape, constant.shape)
        moved = self.map(lambda t: t.expand(shape), self.scale, limit)
        if self.source.rank == DEALER:
            return moved
        with untraced():
            encoded = ring.encode(constant, self.scale).to(self.source.device)
        self.source.note(encoded)
        return Masked(self.source, moved.public + encoded, moved.mask, self.scale, limit, self.epoch)

    def shown(self, seen: Known, instead: float) -> "Masked":
        """Replaces numbers where the public `seen`, 0 or 1, is 0.

        Args:
            seen: Scale 0, broadcastable.
            instead: The number that replaces them.
        """
        kept = self * seen
        if self.source.rank == DEALER:
            return kept
        (integer,) = ring.encode(torch.tensor([instead]), self.scale).tolist()
        others = (1 - _on(seen.integers, kept.public)) * integer
        return Masked(self.source, kept.public + others, kept.mask, self.scale, self.limit + abs(instead), self.epoch)

    def additive(self) -> "Additive":
        """Returns the same numbers as additive shares."""
        rank = self.source.rank
        if rank == DEALER:
            share = self.source.placeholder(self.shape)
        else:
            share = (self.public if rank == CLIENT else 0) - self.mask
        return Additive(self.source, share, self.scale, self.limit)


class Additive(Number):
    """Numbers z = z_0 + z_1 in additive shares.

    Attributes:
        share: Z_i; at the dealer, who has none, a placeholder.
    """

    def __init__(self, source: Source, share: Tensor, scale: int, limit: float) -> None:
        self.source, self.share, self.scale, self.limit = source, share, scale, limit

    @property
    def shape(self) -> torch.Size:
        """Public shape."""
        return self.share.shape

    def map(self, function: Local, scale: int, limit: float) -> "Additive":
        """See `Number.map`."""
        return Additive(self.source, function(self.share), scale, limit)

    def _with(self, other: "Additive", function: Callable[[Tensor, Tensor], Tensor]) -> "Additive":
        return Additive(self.source, function(self.share, other.share), self.scale, self.limit + other.limit)


def cat(values: Sequence[Any], dim: int) -> Any:
    """Concatenates values that are all masked or all additive; the result has the largest scale of its parts."""
    scale, limit = max(v.scale for v in values), max(v.limit for v in values)
    values = [v.upscaled(scale) for v in values]
    source = values[0].source
    if isinstance(values[0], Masked):
        public, mask = (torch.cat(parts, dim) for parts in zip(*((v.public, v.mask) for v in values), strict=True))
        epoch = min((v.epoch for v in values if v.public.numel()), default=Masked.CONSTANT)
        return Masked(source, public, mask, scale, limit, epoch)
    return Additive(source, torch.cat([v.share for v in values], dim), scale, limit)


def largest(constant: Tensor) -> float:
    """Returns the largest absolute value of a public constant, which is the same for each token."""
    with untraced():
        return float(constant.abs().max()) if constant.numel() else 0.0


def _on(number: int | Tensor, like: Tensor) -> int | Tensor:
    return number.to(like.device) if isinstance(number, Tensor) else number
